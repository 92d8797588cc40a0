// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "base/half.h"
#include "tensor/dtype.h"

namespace qpp {

/// From an accumulator to a stored value. All convolutions use one formula, in the reference and in
/// NEON. It is exact to the bit because each step is one IEEE operation:
///
///   level = fma(accumulator[f], multiplier[f], bias[f])
///   level = tanh(level) * post_scale                      only for Nonlinearity::tanh
///   level = fma(r, residual.scale, level)                 only with a residual, without tanh
///   level = min(max(level, lo), hi)
///   int8:   q = round_half_even(level) + zero_point
///   int16:  the same
///   fp16:   value = half(level)
///
/// Magic-bias fast path, for sums of int8 products that magic_bias.h finds small enough:
///
///   sum   = accumulator[f] + r * residual.factor[f]        only from an int8 residual to int8
///   level = fma(the float whose bits are sum, multiplier[f], bias[f])
///   int8:   q = min(max(the low 16 bits of level, lo), hi)
///   int16:  q = the low 16 bits of level; the reader clips them to lo and hi
///   fp16:   value = half(min(max(level, lo), hi))
///
/// where fp16 adds a residual before the bounds as above. In a sum, r is the element as it is
/// stored; accumulators start lower by the share of its zero point.
///
/// The caller folds the constants of a layer and sample: for fp16 output, `multiplier` maps the
/// accumulator to real numbers; for int8 and int16 output, `multiplier` and `bias` also hold
/// 1/output scale, and lo, hi are the activation's bounds in output steps, clipped to [qmin -
/// zero_point, qmax - zero_point], of int16 to +-kMaxInt16Level. After a tanh the 1/output scale
/// is `post_scale`. Nothing here is baked into packed weights: all scales are known only at run
/// time.
enum class Nonlinearity : std::uint8_t { clamp, tanh };

/// Smallest and largest value; NaN in either if one was NaN.
struct Range {
  float lo = INFINITY;
  float hi = -INFINITY;
};

/// Bounds of int16 levels, zero points not included.
inline constexpr float kMaxInt16Level = 30000;

/// How elements of another tensor are added to levels: a residual connection. r is an fp16 element
/// or, of int8, an element less its zero point.
struct ResidualStage {
  DType dtype = DType::f16;              // f16 or qai8
  float scale = 1;                       // 1 from fp16 to fp16
  std::int32_t zero_point = 0;           // of int8
  const std::int16_t* factor = nullptr;  // [filters] fast path to int8: units of the
                                         // accumulators that are a step
};

struct OutputStage {
  const std::int32_t* correction =
      nullptr;  // [filters] int8 source: accumulators start here, -zero_point_in * sum of weights
  const float* multiplier = nullptr;     // [filters]; null from fp16 to fp16 only: all are 1
  const float* bias = nullptr;           // [filters]
  bool magic_bias_accumulators = false;  // fast path, no tanh; of int8, lo and hi hold zero_point
  Nonlinearity nonlinearity = Nonlinearity::clamp;
  float post_scale = 1;
  float lo = -INFINITY;
  float hi = INFINITY;
  std::int32_t zero_point = 0;  // int8 destination only
  Range* range = nullptr;  // fp16 destination only: extended by every stored value, padded channels
                           // included; may be null
  ResidualStage residual;  // where the kernel's args point to one
};

/// The arrays of a stage, as a run fills them.
struct OutputArrays {
  std::int32_t* correction = nullptr;  // not filled where null
  float* multiplier = nullptr;
  float* bias = nullptr;
  std::int16_t* residual_factor = nullptr;  // filled for an int8 residual, if magic_bias.h applies
};

/// Adding it to a float of magnitude below 2^22 rounds half to even to an integer, which is then in
/// the low bits.
inline constexpr float kRoundingMagic = 12582912.0F;  // 1.5 * 2^23

/// round_half_even(level) + zero_point, for |level| <= 2^22 with a result that fits int8. NaN gives
/// zero_point.
inline std::int8_t round_to_int8(float level, std::int32_t zero_point) {
  const auto rounded = std::bit_cast<std::uint32_t>(level + kRoundingMagic);
  return static_cast<std::int8_t>(rounded + static_cast<std::uint32_t>(zero_point));
}

/// NEON's fmin(fmax(level, lo), hi): NaN passes through, and -0 becomes +0 where `lo` is +0. The
/// bounds are neither NaN nor -0.
inline float clamp_level(float level, float lo, float hi) {
  level = level <= lo ? lo : level;
  return level > hi ? hi : level;
}

inline constexpr float kTanhLimit = 10;  // tanh is 1 from here on, to float precision
inline constexpr float kLog2E = 0x1.715476p+0F;
inline constexpr float kLn2High = 0x1.62e4p-1F;  // 16 bits, so that n * kLn2High is exact
inline constexpr float kLn2Low = 0x1.7f7d1cp-20F;

/// tanh(x) = e / (e + 2) with e = exp(2x) - 1, within 6e-7 relative of the true value. Every step
/// is one IEEE operation, so that the NEON twin gives the same bits.
inline float tanh_shared(float x) {
  const float y = 2.0F * clamp_level(x, -kTanhLimit, kTanhLimit);
  const float shifted = std::fma(y, kLog2E, kRoundingMagic);
  const float n = shifted - kRoundingMagic;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, y));  // |r| <= ln(2)/2
  // exp(r) - 1 = r + r^2 * (1/2 + r/6 + r^2/24 + r^3/120 + r^4/720)
  float p = std::fma(r, 1.0F / 720.0F, 1.0F / 120.0F);
  p = std::fma(p, r, 1.0F / 24.0F);
  p = std::fma(p, r, 1.0F / 6.0F);
  p = std::fma(p, r, 0.5F);
  p = std::fma(p * r, r, r);
  // The integer n is in the low bits of `shifted`; moved to the exponent it makes 2^n.
  const float power =
      std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000U);
  const float e = std::fma(power, p, power - 1.0F);
  return e / (e + 2.0F);
}

/// r of an element of a residual.
inline float residual_at(const ResidualStage& stage, const void* residual, std::int64_t index) {
  if (stage.dtype == DType::f16) return to_float(static_cast<const half*>(residual)[index]);
  return static_cast<float>(static_cast<const std::int8_t*>(residual)[index] - stage.zero_point);
}

/// The level of one accumulator, before it is stored; `residual` is r, if there is one.
inline float output_level(const OutputStage& stage, float accumulator, float multiplier, float bias,
                          std::optional<float> residual = {}) {
  float level = std::fma(accumulator, multiplier, bias);
  if (stage.nonlinearity == Nonlinearity::tanh) level = tanh_shared(level) * stage.post_scale;
  if (residual) level = std::fma(*residual, stage.residual.scale, level);
  return clamp_level(level, stage.lo, stage.hi);
}

inline float output_level(const OutputStage& stage, float accumulator, std::int64_t filter,
                          std::optional<float> residual = {}) {
  const float multiplier = stage.multiplier == nullptr ? 1.0F : stage.multiplier[filter];
  return output_level(stage, accumulator, multiplier, stage.bias[filter], residual);
}

/// Extends `range` to contain `other`. A NaN remains: comparisons with it are false. Inlined by
/// force, since files for several instruction sets share it.
[[gnu::always_inline]] inline void extend_range(Range& range, const Range& other) {
  range.lo = range.lo <= other.lo || std::isnan(range.lo) ? range.lo : other.lo;
  range.hi = range.hi >= other.hi || std::isnan(range.hi) ? range.hi : other.hi;
}

inline void extend_range(Range& range, float value) {
  extend_range(range, {.lo = value, .hi = value});
}

inline void store(const OutputStage& stage, float level, half* dst) {
  *dst = to_half(level);
  if (stage.range != nullptr) extend_range(*stage.range, to_float(*dst));
}

inline void store(const OutputStage& stage, float level, std::int8_t* dst) {
  *dst = round_to_int8(level, stage.zero_point);
}

inline void store(const OutputStage& stage, float level, std::int16_t* dst) {
  const auto rounded = std::bit_cast<std::uint32_t>(level + kRoundingMagic);
  *dst = static_cast<std::int16_t>(rounded + static_cast<std::uint32_t>(stage.zero_point));
}

/// Stores the level of a magic-bias accumulator; `residual`, at `index`,
/// may be null.
inline void store_magic_bias(const OutputStage& stage, std::int32_t accumulator,
                             std::int64_t filter, std::int16_t* dst) {
  const float level =
      std::fma(std::bit_cast<float>(accumulator), stage.multiplier[filter], stage.bias[filter]);
  *dst = static_cast<std::int16_t>(std::bit_cast<std::uint32_t>(level));
}
inline void store_magic_bias(const OutputStage& stage, std::int32_t accumulator,
                             std::int64_t filter, std::int8_t* dst, const void* residual = nullptr,
                             std::int64_t index = 0) {
  if (residual != nullptr) {
    accumulator += static_cast<const std::int8_t*>(residual)[index] * stage.residual.factor[filter];
  }
  std::int16_t integer = 0;
  store_magic_bias(stage, accumulator, filter, &integer);
  *dst = static_cast<std::int8_t>(clamp_level(integer, stage.lo, stage.hi));
}
inline void store_magic_bias(const OutputStage& stage, std::int32_t accumulator,
                             std::int64_t filter, half* dst, const void* residual = nullptr,
                             std::int64_t index = 0) {
  float level =
      std::fma(std::bit_cast<float>(accumulator), stage.multiplier[filter], stage.bias[filter]);
  if (residual != nullptr) {
    level = std::fma(residual_at(stage.residual, residual, index), stage.residual.scale, level);
  }
  store(stage, clamp_level(level, stage.lo, stage.hi), dst);
}

}  // namespace qpp
