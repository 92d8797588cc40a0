// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kChains = 4;

/// The bounds of the vectors that were added; FMIN and FMAX keep NaN. Each chain takes every fourth
/// vector, because an operation waits two cycles for the one before.
class Bounds {
 public:
  QPP_NEON_INLINE explicit Bounds(float16x8_t first) {
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) lo_[i] = hi_[i] = first;
  }
  QPP_NEON_INLINE void add(int chain, float16x8_t value) {
    lo_[chain] = vminq_f16(lo_[chain], value);
    hi_[chain] = vmaxq_f16(hi_[chain], value);
  }
  QPP_NEON_INLINE Range range() const {
    const float16x8_t lo = vminq_f16(vminq_f16(lo_[0], lo_[1]), vminq_f16(lo_[2], lo_[3]));
    const float16x8_t hi = vmaxq_f16(vmaxq_f16(hi_[0], hi_[1]), vmaxq_f16(hi_[2], hi_[3]));
    return {.lo = static_cast<float>(vminvq_f16(lo)), .hi = static_cast<float>(vmaxvq_f16(hi))};
  }

 private:
  float16x8_t lo_[kChains];
  float16x8_t hi_[kChains];
};

}  // namespace

// range = min and max over src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole pixels, padding included, which does not count
// registers      8 for the chains, 4 for the elements
// loop budget    32 elements without padding: 4 loads, 8 FMIN/FMAX: 4 cycles on A76 (0.13 per
//                element)
void minmax_f32_f16_neon_fp16(const MinMaxArgs& args) {
  // Without padding, all pixels are one.
  const bool dense = args.src.channels == args.src.stride;
  const std::int64_t pixels = dense ? 1 : args.src.pixels;
  const std::int64_t channels = dense ? args.src.pixels * args.src.channels : args.src.channels;
  const uint16x8_t lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  const uint16x8_t tail = vcltq_u16(lanes, vdupq_n_u16(static_cast<std::uint16_t>(channels % 8)));

  Bounds bounds(load_broadcast(args.src.data));
  for (std::int64_t p = 0; p < pixels; ++p) {
    const half* src = args.src.data + p * args.src.stride;
    const half* const end = src + channels;
    for (; end - src >= 8 * kChains; src += 8 * kChains) {
#pragma GCC unroll 4
      for (int i = 0; i < kChains; ++i) bounds.add(i, load(src + 8 * i));
    }
    for (; end - src >= 8; src += 8) bounds.add(0, load(src));
    if (src != end) bounds.add(1, vbslq_f16(tail, load(src), load_broadcast(src)));
  }
  *args.range = bounds.range();
}

}  // namespace qpp
