// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/conv.h"
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

/// The even bytes are the levels, rounded half to even; what follows adds the zero point.
QPP_NEON_INLINE int8x16_t round_to_low_bytes(const Float8& level) {
  const float32x4_t magic = vdupq_n_f32(kRoundingMagic);
  return vreinterpretq_s8_s16(vuzp1q_s16(vreinterpretq_s16_f32(vaddq_f32(level.low, magic)),
                                         vreinterpretq_s16_f32(vaddq_f32(level.high, magic))));
}

/// Turns blocks of accumulators, 8 pixels x 8 filters, into stored values. One object serves one
/// call of a kernel, which ends with finish().
template <typename Dst>
class BlockOutput {
 public:
  static constexpr int kPixels = 8;
  static constexpr int kFilters = 8;

  QPP_NEON_INLINE explicit BlockOutput(const ConvArgs& args)
      : stage_(*args.output),
        dst_(static_cast<Dst*>(args.dst)),
        dst_stride_(args.dst_stride),
        pixel_count_(args.pixel_count),
        lo_(vdupq_n_f32(stage_.lo)),
        hi_(vdupq_n_f32(stage_.hi)),
        zero_point_(vdupq_n_s8(static_cast<std::int8_t>(stage_.zero_point))) {}

  /// Stores filters filter .. filter + 7 of the valid pixels; sums(p) gives the accumulators of
  /// pixel p as Float8.
  ///
  /// Two pixels go all the way before the next two: int32 to float conversions keep one pipe busy
  /// for two cycles each, so the other pipe needs work that depends on the previous pixels.
  template <typename Sums>
  QPP_NEON_INLINE void store_block(std::int64_t filter, const Sums& sums) {
    Dst* dst = dst_ + filter;
    const float* bias = stage_.bias + filter;
    const Float8 multiplier = load(stage_.multiplier + filter);
    const bool tanh = stage_.nonlinearity == Nonlinearity::tanh;
    if (!tanh && pixel_count_ == kPixels) {
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; p += 2) {
        const Float8 even = scale(sums(p), multiplier, bias);
        const Float8 odd = scale(sums(p + 1), multiplier, bias);
        store_two_pixels(dst + p * dst_stride_, even, odd);
      }
      return;
    }
    // The rarer cases loop over a copy in memory, so that their code stays short.
    Float8 levels[kPixels];
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) levels[p] = scale(sums(p), multiplier, bias);
    for (std::int64_t p = 0; p < pixel_count_; ++p) {
      store_pixel(dst + p * dst_stride_, tanh ? tanh_level(levels[p]) : levels[p]);
    }
  }

  /// Writes back the range of what was stored, if it is wanted.
  QPP_NEON_INLINE void finish() const {
    if (!std::is_same_v<Dst, half> || stage_.range == nullptr) return;
    // Rounding is monotonic: the rounded bounds of the levels are the bounds of the stored values.
    widen(*stage_.range, to_float(to_half(vminvq_f32(range_lo_))));
    widen(*stage_.range, to_float(to_half(vmaxvq_f32(range_hi_))));
  }

 private:
  QPP_NEON_INLINE static Float8 scale(const Float8& sums, const Float8& multiplier,
                                      const float*& bias) {
    forget(bias);
    return {vfmaq_f32(vld1q_f32(bias), sums.low, multiplier.low),
            vfmaq_f32(vld1q_f32(bias + 4), sums.high, multiplier.high)};
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 tanh_level(const Float8& level) const {
    const float32x4_t post_scale = vdupq_n_f32(stage_.post_scale);
    return {vmulq_f32(tanh_shared(level.low), post_scale),
            vmulq_f32(tanh_shared(level.high), post_scale)};
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 clamp(const Float8& level) const {
    return {clamp_level(level.low, lo_, hi_), clamp_level(level.high, lo_, hi_)};
  }

  QPP_NEON_INLINE void store_two_pixels(std::int8_t* dst, const Float8& even,
                                        const Float8& odd) const {
    const int8x16_t values = vaddq_s8(
        vuzp1q_s8(round_to_low_bytes(clamp(even)), round_to_low_bytes(clamp(odd))), zero_point_);
    vst1_s8(dst, vget_low_s8(values));
    vst1_s8(dst + dst_stride_, vget_high_s8(values));
  }

  QPP_NEON_INLINE void store_pixel(std::int8_t* dst, const Float8& level) const {
    const int8x16_t low_bytes = round_to_low_bytes(clamp(level));
    vst1_s8(dst, vget_low_s8(vaddq_s8(vuzp1q_s8(low_bytes, low_bytes), zero_point_)));
  }

  QPP_NEON_INLINE void store_two_pixels(half* dst, const Float8& even, const Float8& odd) {
    store_pixel(dst, even);
    store_pixel(dst + dst_stride_, odd);
  }

  QPP_NEON_INLINE void store_pixel(half* dst, const Float8& level) {
    const Float8 clamped = clamp(level);
    store(dst, narrow(clamped));
    range_lo_ = vminq_f32(range_lo_, vminq_f32(clamped.low, clamped.high));
    range_hi_ = vmaxq_f32(range_hi_, vmaxq_f32(clamped.low, clamped.high));
  }

  const OutputStage& stage_;
  Dst* dst_;
  std::int64_t dst_stride_;
  std::int64_t pixel_count_;
  float32x4_t lo_;
  float32x4_t hi_;
  int8x16_t zero_point_;
  float32x4_t range_lo_ = vdupq_n_f32(INFINITY);
  float32x4_t range_hi_ = vdupq_n_f32(-INFINITY);
};

}  // namespace qpp
