// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/neon/vectors.h"
#include "kernels/output_stage.h"

namespace qpp {

// The NEON twin of output_stage.h: the same operations in the same order, so the same bits.

QPP_NEON_INLINE float32x4_t clamp_level(float32x4_t level, float32x4_t lo, float32x4_t hi) {
  return vminq_f32(vmaxq_f32(level, lo), hi);
}

QPP_NEON_INLINE float32x4_t tanh_shared(float32x4_t x) {
  const float32x4_t magic = vdupq_n_f32(kRoundingMagic);
  const float32x4_t one = vdupq_n_f32(1);
  const float32x4_t clamped = clamp_level(x, vdupq_n_f32(-kTanhLimit), vdupq_n_f32(kTanhLimit));
  const float32x4_t y = vaddq_f32(clamped, clamped);
  const float32x4_t shifted = vfmaq_f32(magic, y, vdupq_n_f32(kLog2E));
  const float32x4_t n = vsubq_f32(shifted, magic);
  float32x4_t r = vfmsq_f32(y, n, vdupq_n_f32(kLn2High));
  r = vfmsq_f32(r, n, vdupq_n_f32(kLn2Low));
  float32x4_t p = vfmaq_f32(vdupq_n_f32(1.0F / 120.0F), r, vdupq_n_f32(1.0F / 720.0F));
  p = vfmaq_f32(vdupq_n_f32(1.0F / 24.0F), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0F / 6.0F), p, r);
  p = vfmaq_f32(vdupq_n_f32(0.5F), p, r);
  p = vfmaq_f32(r, vmulq_f32(p, r), r);
  const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
  const float32x4_t power = vreinterpretq_f32_u32(vaddq_u32(exponent, vreinterpretq_u32_f32(one)));
  const float32x4_t e = vfmaq_f32(vsubq_f32(power, one), power, p);
  return vdivq_f32(e, vaddq_f32(e, vdupq_n_f32(2)));
}

/// r of eight elements of a residual, output_stage.h.
QPP_NEON_INLINE Float8 residual_at(const ResidualStage& /*stage*/, const half* residual) {
  return to_float32(load(residual));
}
QPP_NEON_INLINE Float8 residual_at(const ResidualStage& stage, const std::int8_t* residual) {
  const int16x8_t steps =
      vsubl_s8(vld1_s8(residual), vdup_n_s8(static_cast<std::int8_t>(stage.zero_point)));
  // Added to the bits of the magic number: SCVTF takes two cycles.
  const float32x4_t magic = vdupq_n_f32(kRoundingMagic);
  const int32x4_t bits = vreinterpretq_s32_f32(magic);
  return {vsubq_f32(vreinterpretq_f32_s32(vaddw_s16(bits, vget_low_s16(steps))), magic),
          vsubq_f32(vreinterpretq_f32_s32(vaddw_high_s16(bits, steps)), magic)};
}

/// Adds it to levels.
template <typename Element>
QPP_NEON_INLINE Float8 add_residual(const ResidualStage& stage, const Float8& level,
                                    const Element* residual) {
  const Float8 r = residual_at(stage, residual);
  const float32x4_t scale = vdupq_n_f32(stage.scale);
  return {vfmaq_f32(level.low, r.low, scale), vfmaq_f32(level.high, r.high, scale)};
}

/// The low bits of the floats are the levels, rounded half to even.
QPP_NEON_INLINE Float8 round_to_low_bits(const Float8& level) {
  const float32x4_t magic = vdupq_n_f32(kRoundingMagic);
  return {vaddq_f32(level.low, magic), vaddq_f32(level.high, magic)};
}

/// The low 16 bits of eight floats.
QPP_NEON_INLINE int16x8_t low_halves(const Float8& value) {
  return vuzp1q_s16(vreinterpretq_s16_f32(value.low), vreinterpretq_s16_f32(value.high));
}

/// The even bytes are the levels, rounded half to even; the caller adds the zero point.
QPP_NEON_INLINE int8x16_t round_to_low_bytes(const Float8& level) {
  return vreinterpretq_s8_s16(low_halves(round_to_low_bits(level)));
}

}  // namespace qpp
