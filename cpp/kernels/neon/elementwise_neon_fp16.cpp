// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Applies `combine` to vectors of 8. Rounding is monotonic, so that clamping the rounded result to
/// rounded bounds is as good as rounding the clamped one.
template <typename Combine>
QPP_NEON_INLINE void combine_f16(const BinaryArgs& args, const Combine& combine) {
  const auto* a = static_cast<const half*>(args.a);
  const auto* b = static_cast<const half*>(args.b);
  auto* dst = static_cast<half*>(args.dst);
  const half lo_half = to_half(args.lo);
  const half hi_half = to_half(args.hi);
  const float16x8_t lo = load_broadcast(&lo_half);
  const float16x8_t hi = load_broadcast(&hi_half);
  const auto one = [&](std::int64_t i) {
    const float16x8_t value = combine(load(a + i), load(b + i));
    store(dst + i, vminq_f16(vmaxq_f16(value, lo), hi));
  };
  std::int64_t i = 0;
  for (; i + 32 <= args.count; i += 32) {
    one(i);
    one(i + 8);
    one(i + 16);
    one(i + 24);
  }
  for (; i < args.count; i += 8) one(i);
}

}  // namespace

// dst[i] = half(clamp(a[i] + b[i] * b_scale, lo, hi)), b_scale 1 or -1
//
// a, b, dst      flat arrays of `count` fp16
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 2 loads; FMLA (the multiplication by 1 or -1 is exact), FMAX, FMIN, 1
//                store, a move: 5 slots, 2.5 cycles on A76 (0.3 an element)
void add_f16_f16_neon_fp16(const BinaryArgs& args) {
  const half scale_half = to_half(args.b_scale);
  const float16x8_t scale = load_broadcast(&scale_half);
  combine_f16(args, [=](float16x8_t a, float16x8_t b) { return vfmaq_f16(a, b, scale); });
}

// dst[i] = half(clamp(a[i] * b[i], lo, hi))
//
// a, b, dst      flat arrays of `count` fp16
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 2 loads; FMUL, FMAX, FMIN, 1 store: 4 slots, 2 cycles on A76 (0.25 an
//                element)
void mul_f16_f16_neon_fp16(const BinaryArgs& args) {
  combine_f16(args, [](float16x8_t a, float16x8_t b) { return vmulq_f16(a, b); });
}

}  // namespace qpp
