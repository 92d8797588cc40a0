// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/variants.h"
#include "kernels/x86/vectors.h"

namespace qpp {
namespace {

/// The bounds of the halves that were added.
class Bounds {
 public:
  QPP_X86_INLINE explicit Bounds(__m256i first) : lo_(to_ordered(first)), hi_(lo_) {}
  QPP_X86_INLINE void add(__m256i halves) {
    const __m256i ordered = to_ordered(halves);
    lo_ = _mm256_min_epi16(lo_, ordered);
    hi_ = _mm256_max_epi16(hi_, ordered);
  }
  QPP_X86_INLINE Range range() const {
    alignas(32) std::int16_t lo[16];
    alignas(32) std::int16_t hi[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lo), lo_);
    _mm256_store_si256(reinterpret_cast<__m256i*>(hi), hi_);
    const std::int16_t least = *std::min_element(lo, lo + 16);
    const std::int16_t most = *std::max_element(hi, hi + 16);
    constexpr std::int16_t kInfinity = 0x7c00;
    if (least < -kInfinity || most > kInfinity) return {.lo = NAN, .hi = NAN};
    return {.lo = to_float(from_ordered(least)), .hi = to_float(from_ordered(most))};
  }

 private:
  __m256i lo_;
  __m256i hi_;
};

}  // namespace

// range = min and max over src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole vectors of 8, padding included, which does not count
// registers      2 for the bounds, 2 for the elements
// loop budget    16 elements without padding: 1 load, VPAND, VPSIGNW, VPMINSW, VPMAXSW: a cycle
//                where four vector operations start in a cycle, two where two do
void minmax_f32_f16_x86_avx2(const MinMaxArgs& args) {
  // Without padding, all pixels are one.
  const bool dense = args.src.channels == args.src.stride;
  const std::int64_t pixels = dense ? 1 : args.src.pixels;
  const std::int64_t channels = dense ? args.src.pixels * args.src.channels : args.src.channels;
  const __m256i tail = first_lanes(channels % 8);

  const __m256i first = _mm256_set1_epi16(static_cast<std::int16_t>(args.src.data->bits));
  Bounds bounds(first);
  for (std::int64_t p = 0; p < pixels; ++p) {
    const half* src = args.src.data + p * args.src.stride;
    const half* const end = src + channels;
    for (; end - src >= 16; src += 16) bounds.add(load_halves(src));
    for (; end - src >= 8; src += 8) bounds.add(load_twice(src));
    if (src != end) bounds.add(_mm256_blendv_epi8(first, load_twice(src), tail));
  }
  *args.range = bounds.range();
}

}  // namespace qpp
