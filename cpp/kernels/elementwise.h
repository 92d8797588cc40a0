// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/output_stage.h"
#include "tensor/qparams.h"

namespace qpp {

/// The constants of an int8 addition, in integers, so that 16 elements take a few instructions:
///
///   high = a * a_high + b * b_high + constant        exact in 16 bits
///   low  = a * a_low  + b * b_low                    the same
///   sum  = high + (low >> 7)                         output levels in steps of 2^-shift
///   q    = min(max(saturate((sum + 2^(shift-1)) >> shift), lo), hi)
///
/// 128 * a_high + a_low is a's scale over the output's, in steps of 2^-(shift + 7); `constant`
/// holds all zero points. The result is the rounded sum wherever that is further than 2^-(shift -
/// 1) from the middle between two levels.
struct AddLevels {
  std::int8_t a_high = 0;
  std::int8_t a_low = 0;
  std::int8_t b_high = 0;
  std::int8_t b_low = 0;
  std::int16_t constant = 0;
  int shift = 1;  // 1 .. kMaxAddShift
  std::int8_t lo = -128;
  std::int8_t hi = 127;
};
inline constexpr int kMaxAddShift = 7;

/// The constants of q = quantize(clamp(a + sign * b, lo, hi)) with the largest shift that fits.
AddLevels make_add_levels(const QParams& a, const QParams& b, const QParams& dst, float sign,
                          float lo, float hi);

inline std::int8_t add_levels(std::int8_t a, std::int8_t b, const AddLevels& levels) {
  const int high = a * levels.a_high + b * levels.b_high + levels.constant;
  const int low = a * levels.a_low + b * levels.b_low;
  const int sum = (high + (low >> 7) + (1 << (levels.shift - 1))) >> levels.shift;
  const int saturated = sum < -128 ? -128 : (sum > 127 ? 127 : sum);
  const int raised = saturated < levels.lo ? levels.lo : saturated;
  return static_cast<std::int8_t>(raised > levels.hi ? levels.hi : raised);
}

/// Two flat arrays to one. An int8 element represents (q - zero_point) * scale.
///
///   add, f16 from f16:    dst = half(clamp(a + b * b_scale)), b_scale 1 or -1
///   add, f16 from qai8:   dst = half(clamp(fma(a - za, a_scale, (b - zb) * b_scale)))
///   add, qai8 from qai8:  dst = add_levels(a, b, levels)
///   mul, f16 from f16:    dst = half(clamp(a * b))
///   mul, f16 from qai8:   dst = half(clamp((a - za) * (b - zb) * a_scale))
///   mul, qai8 from qai8:  dst = round_half_even(clamp((a - za) * (b - zb) * a_scale)) + zero
///
/// zero is zero_point. In products a_scale is that of both operands, to qai8 over the output's, and
/// lo and hi are in output steps.
struct BinaryArgs {
  const void* a = nullptr;
  const void* b = nullptr;
  void* dst = nullptr;
  std::int64_t count = 0;  // a multiple of 8
  float a_scale = 1;
  float b_scale = 1;
  std::int32_t a_zero_point = 0;
  std::int32_t b_zero_point = 0;
  float lo = -INFINITY;
  float hi = INFINITY;
  std::int32_t zero_point = 0;
  AddLevels levels;
};
using BinaryKernel = Kernel<BinaryArgs>;

/// A flat int8 array to another scale and zero point:
///
///   dst[i] = add_levels(src[i], 0, levels), levels = make_requantize_levels(..)
struct RequantizeArgs {
  const std::int8_t* src = nullptr;
  std::int8_t* dst = nullptr;
  std::int64_t count = 0;  // a multiple of 8
  AddLevels levels;        // b_high and b_low are zero
};
using RequantizeKernel = Kernel<RequantizeArgs>;

/// The constants of an addition whose second operand counts nothing.
inline AddLevels make_requantize_levels(const QParams& src, const QParams& dst) {
  return make_add_levels(src, src, dst, 0, -INFINITY, INFINITY);
}

}  // namespace qpp
