// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"
#include "kernels/neon/output_stage_neon.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// The levels of sums in steps of 2^-shift, before rounding. kUnary: without b, as its multipliers
/// are zero.
template <bool kUnary>
struct AddConstants {
  int8x16_t a_high;
  int8x16_t a_low;
  int8x16_t b_high;
  int8x16_t b_low;
  const std::int16_t* constant;  // eight times; loaded, not moved: see forget()

  QPP_NEON_INLINE AddConstants(const AddLevels& levels, const std::int16_t (&constants)[8])
      : a_high(vdupq_n_s8(levels.a_high)),
        a_low(vdupq_n_s8(levels.a_low)),
        b_high(vdupq_n_s8(levels.b_high)),
        b_low(vdupq_n_s8(levels.b_low)),
        constant(constants) {}

  [[nodiscard]] QPP_NEON_INLINE int16x8_t low_sum(int8x16_t a, int8x16_t b) {
    int16x8_t high = vmlal_s8(start(), vget_low_s8(a), vget_low_s8(a_high));
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(a_low));
    if (!kUnary) {
      high = vmlal_s8(high, vget_low_s8(b), vget_low_s8(b_high));
      low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(b_low));
    }
    return vsraq_n_s16(high, low, 7);
  }

  [[nodiscard]] QPP_NEON_INLINE int16x8_t high_sum(int8x16_t a, int8x16_t b) {
    int16x8_t high = vmlal_high_s8(start(), a, a_high);
    int16x8_t low = vmull_high_s8(a, a_low);
    if (!kUnary) {
      high = vmlal_high_s8(high, b, b_high);
      low = vmlal_high_s8(low, b, b_low);
    }
    return vsraq_n_s16(high, low, 7);
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE int16x8_t start() {
    forget(constant);
    return vld1q_s16(constant);
  }
};

/// Flat arrays of add_qai8_qai8; b is not read if kUnary.
struct AddArrays {
  const std::int8_t* a;
  const std::int8_t* b;
  std::int8_t* dst;
  std::int64_t count;
};

template <bool kUnary, int kShift, bool kClamp>
void add_levels(const AddArrays& arrays, const AddLevels& levels) {
  std::int16_t constant[8];
  vst1q_s16(constant, vdupq_n_s16(levels.constant));
  AddConstants<kUnary> constants(levels, constant);
  const int8x16_t lo = vdupq_n_s8(levels.lo);
  const int8x16_t hi = vdupq_n_s8(levels.hi);
  const auto [a, b, dst, count] = arrays;
  const auto add = [&](std::int64_t i) QPP_NEON_INLINE_LAMBDA {
    const int8x16_t x = vld1q_s8(a + i);
    const int8x16_t y = kUnary ? x : vld1q_s8(b + i);
    const int8x8_t low = vqrshrn_n_s16(constants.low_sum(x, y), kShift);
    const int8x16_t sum = vqrshrn_high_n_s16(low, constants.high_sum(x, y), kShift);
    vst1q_s8(dst + i, kClamp ? vminq_s8(vmaxq_s8(sum, lo), hi) : sum);
  };
  std::int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    add(i);
    add(i + 16);
  }
  for (; i + 16 <= count; i += 16) add(i);
  if (i < count) {
    const int8x16_t x = vcombine_s8(vld1_s8(a + i), vdup_n_s8(0));
    const int8x16_t y = kUnary ? x : vcombine_s8(vld1_s8(b + i), vdup_n_s8(0));
    const int8x8_t sum = vqrshrn_n_s16(constants.low_sum(x, y), kShift);
    vst1_s8(dst + i, vmin_s8(vmax_s8(sum, vget_low_s8(lo)), vget_low_s8(hi)));
  }
}

/// Bounds that are those of int8, as after a ReLU to a row that begins with zero, cost nothing.
template <bool kUnary, int kShift>
void add_levels(const AddArrays& arrays, const AddLevels& levels) {
  const bool clamps = levels.lo != -128 || levels.hi != 127;
  return clamps ? add_levels<kUnary, kShift, true>(arrays, levels)
                : add_levels<kUnary, kShift, false>(arrays, levels);
}

template <bool kUnary>
void add_levels(const AddArrays& arrays, const AddLevels& levels) {
  switch (levels.shift) {
    case 1:
      return add_levels<kUnary, 1>(arrays, levels);
    case 2:
      return add_levels<kUnary, 2>(arrays, levels);
    case 3:
      return add_levels<kUnary, 3>(arrays, levels);
    case 4:
      return add_levels<kUnary, 4>(arrays, levels);
    case 5:
      return add_levels<kUnary, 5>(arrays, levels);
    case 6:
      return add_levels<kUnary, 6>(arrays, levels);
    default:
      return add_levels<kUnary, kMaxAddShift>(arrays, levels);
  }
}

}  // namespace

// dst[i] = add_levels(a[i], b[i], levels), see elementwise.h
//
// a, b, dst      flat arrays of `count` int8
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// why integers   a conversion to float costs two slots of one pipe for four elements; SMLAL gives
//                eight products a slot, and two multipliers of 8 bits make one of 14
// registers      10 for constants, 6 for 16 elements
// loop budget    16 elements: 2 loads and 2 of the constant; on V0 8 SMULL/SMLAL, on V1 2 SSRA, 2
//                SQRSHRN, 1 store: 8 cycles on A76, bound by V0 (0.5 an element); bounds take 2
//                slots more
void add_qai8_qai8_neon(const BinaryArgs& args) {
  add_levels<false>({.a = static_cast<const std::int8_t*>(args.a),
                     .b = static_cast<const std::int8_t*>(args.b),
                     .dst = static_cast<std::int8_t*>(args.dst),
                     .count = args.count},
                    args.levels);
}

// dst[i] = add_levels(src[i], 0, levels), see elementwise.h
//
// src, dst       flat arrays of `count` int8
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// registers      8 for constants, 5 for 16 elements
// loop budget    16 elements: 1 load and 2 of the constant; on V0 4 SMULL/SMLAL, on V1 2 SSRA, 2
//                SQRSHRN, 1 store: 9 slots, 4.5 cycles on A76 (0.28 an element)
void requantize_qai8_qai8_neon(const RequantizeArgs& args) {
  add_levels<true>({.a = args.src, .b = nullptr, .dst = args.dst, .count = args.count},
                   args.levels);
}

namespace {

/// Eight int8, less a zero point, as floats.
QPP_NEON_INLINE Float8 steps(int8x8_t values, int8x8_t zero_point) {
  const int16x8_t wide = vsubl_s8(values, zero_point);
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
}

/// Eight products of int8, each less its zero point, as floats.
QPP_NEON_INLINE Float8 products(int8x8_t a, int8x8_t a_zero_point, int8x8_t b,
                                int8x8_t b_zero_point) {
  const int16x8_t x = vsubl_s8(a, a_zero_point);
  const int16x8_t y = vsubl_s8(b, b_zero_point);
  return {vcvtq_f32_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y))),
          vcvtq_f32_s32(vmull_high_s16(x, y))};
}

QPP_NEON_INLINE Float8 clamp_both(const Float8& level, float32x4_t lo, float32x4_t hi) {
  return {clamp_level(level.low, lo, hi), clamp_level(level.high, lo, hi)};
}

}  // namespace

// dst[i] = half(clamp(fma(a[i] - za, a_scale, (b[i] - zb) * b_scale), lo, hi))
//
// a, b, dst      flat arrays of `count` int8 and fp16
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 2 loads; on V0 4 SCVTF and 2 FCVTN of two slots each, 8 others, 4 SXTL
//                on V1: 12 cycles on A76, bound by V0 (1.5 an element)
void add_f16_qai8_neon(const BinaryArgs& args) {
  const auto* a = static_cast<const std::int8_t*>(args.a);
  const auto* b = static_cast<const std::int8_t*>(args.b);
  const int8x8_t a_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.a_zero_point));
  const int8x8_t b_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.b_zero_point));
  const float32x4_t a_scale = vdupq_n_f32(args.a_scale);
  const float32x4_t b_scale = vdupq_n_f32(args.b_scale);
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  for (std::int64_t i = 0; i < args.count; i += 8) {
    const Float8 x = steps(vld1_s8(a + i), a_zero_point);
    const Float8 y = steps(vld1_s8(b + i), b_zero_point);
    const Float8 sum = {vfmaq_f32(vmulq_f32(y.low, b_scale), x.low, a_scale),
                        vfmaq_f32(vmulq_f32(y.high, b_scale), x.high, a_scale)};
    store(static_cast<half*>(args.dst) + i, narrow(clamp_both(sum, lo, hi)));
  }
}

// dst[i] = half(clamp((a[i] - za) * (b[i] - zb) * a_scale, lo, hi))
//
// a, b, dst      flat arrays of `count` int8 and fp16
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 2 loads; on V0 2 SMULL, 2 SCVTF and 2 FCVTN of two slots: 10 cycles on
//                A76 (1.25 an element)
void mul_f16_qai8_neon(const BinaryArgs& args) {
  const auto* a = static_cast<const std::int8_t*>(args.a);
  const auto* b = static_cast<const std::int8_t*>(args.b);
  const int8x8_t a_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.a_zero_point));
  const int8x8_t b_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.b_zero_point));
  const float32x4_t scale = vdupq_n_f32(args.a_scale);
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  for (std::int64_t i = 0; i < args.count; i += 8) {
    const Float8 product = products(vld1_s8(a + i), a_zero_point, vld1_s8(b + i), b_zero_point);
    const Float8 level = {vmulq_f32(product.low, scale), vmulq_f32(product.high, scale)};
    store(static_cast<half*>(args.dst) + i, narrow(clamp_both(level, lo, hi)));
  }
}

// dst[i] = round_half_even(clamp((a[i] - za) * (b[i] - zb) * a_scale, lo, hi)) + zero_point
//
// a, b, dst      flat arrays of `count` int8
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 2 loads; 2 SSUBL, 2 SMULL, 2 SCVTF of two slots, 2 FMUL, 4 FMAX/FMIN,
//                2 FADD, 2 UZP1, 1 ADD, 1 store: 20 slots, 10 cycles on A76 (1.25 an element)
void mul_qai8_qai8_neon(const BinaryArgs& args) {
  const auto* a = static_cast<const std::int8_t*>(args.a);
  const auto* b = static_cast<const std::int8_t*>(args.b);
  auto* dst = static_cast<std::int8_t*>(args.dst);
  const int8x8_t a_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.a_zero_point));
  const int8x8_t b_zero_point = vdup_n_s8(static_cast<std::int8_t>(args.b_zero_point));
  const int8x8_t zero_point = vdup_n_s8(static_cast<std::int8_t>(args.zero_point));
  const float32x4_t scale = vdupq_n_f32(args.a_scale);
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  for (std::int64_t i = 0; i < args.count; i += 8) {
    const Float8 product = products(vld1_s8(a + i), a_zero_point, vld1_s8(b + i), b_zero_point);
    const Float8 level = {vmulq_f32(product.low, scale), vmulq_f32(product.high, scale)};
    const int8x16_t low_bytes = round_to_low_bytes(clamp_both(level, lo, hi));
    vst1_s8(dst + i, vadd_s8(vget_low_s8(vuzp1q_s8(low_bytes, low_bytes)), zero_point));
  }
}

}  // namespace qpp
