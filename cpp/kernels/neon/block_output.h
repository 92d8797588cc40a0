// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/conv.h"
#include "kernels/neon/half_range.h"
#include "kernels/neon/output_stage_neon.h"
#include "kernels/neon/vectors.h"

namespace qpp {

/// Turns blocks of accumulators, 8 pixels x 8 filters or 1 x 8, into stored values; with kResidual,
/// one is added. One object per call of a kernel, which ends with finish(). Needs fp16
/// arithmetic.
template <typename Dst, bool kResidual, int kPixels = 8>
class BlockOutput {
 public:
  static constexpr int kFilters = 8;
  static constexpr bool kBytes = std::is_same_v<Dst, std::int8_t>;
  static constexpr bool kLevels = std::is_same_v<Dst, std::int16_t>;

  QPP_NEON_INLINE explicit BlockOutput(const ConvArgs& args)
      : stage_(*args.output),
        dst_(static_cast<Dst*>(args.dst)),
        residual_(args.residual),
        dst_stride_(args.dst_stride),
        pixel_count_(args.pixel_count),
        byte_lo_(kBytes && stage_.magic_bias_accumulators ? static_cast<std::int8_t>(stage_.lo)
                                                          : 0),
        byte_hi_(kBytes && stage_.magic_bias_accumulators ? static_cast<std::int8_t>(stage_.hi)
                                                          : 0),
        half_lo_(vdupq_n_f16(static_cast<float16_t>(stage_.lo))),
        half_hi_(vdupq_n_f16(static_cast<float16_t>(stage_.hi))) {}

  [[nodiscard]] QPP_NEON_INLINE const OutputStage& stage() const { return stage_; }

  /// Elements of an int8 or fp16 residual for filters filter .. filter + 7; of any valid pixel
  /// where p is none.
  template <typename Element>
  [[nodiscard]] QPP_NEON_INLINE const Element* residual(std::int64_t p, std::int64_t filter) const {
    const std::int64_t valid = p < pixel_count_ ? p : 0;
    return static_cast<const Element*>(residual_) + valid * dst_stride_ + filter;
  }

  /// Stores filters filter .. filter + 7 of the valid pixels; sums(p) gives the accumulators of
  /// pixel p as Float8.
  template <typename Sums>
  QPP_NEON_INLINE void store_block(std::int64_t filter, const Sums& sums) {
    Float8 levels[kPixels];
    const Float8 one{vdupq_n_f32(1), vdupq_n_f32(1)};
    const Float8 multiplier = stage_.multiplier == nullptr ? one : load(stage_.multiplier + filter);
    const Float8 bias = load(stage_.bias + filter);
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      const Float8 sum = sums(p);
      levels[p] = {vfmaq_f32(bias.low, sum.low, multiplier.low),
                   vfmaq_f32(bias.high, sum.high, multiplier.high)};
    }
    // A loop over a copy in memory: this way is the rarer one, so that its code stays short.
    const bool tanh = stage_.nonlinearity == Nonlinearity::tanh;
    for (std::int64_t p = 0; p < pixel_count_; ++p) {
      Float8 level = levels[p];
      if (tanh) level = tanh_level(level);
      if constexpr (kResidual) level = with_residual(level, p, filter);
      store_pixel(pixel(p, filter), clamp(level));
    }
  }

  /// The same for magic-bias accumulators (output_stage.h); bits(p) gives the accumulators as
  /// Float8.
  ///
  /// The biases are loaded again for each pixel (forget), because FMLA overwrites them.
  template <typename Bits>
  QPP_NEON_INLINE void store_magic_bias(std::int64_t filter, const Bits& bits) {
    const float* bias = stage_.bias + filter;
    const Float8 multiplier = load(stage_.multiplier + filter);
    const auto level = [&](int p) QPP_NEON_INLINE_LAMBDA {
      const Float8 sum = kBytes && kResidual ? add_to_bits(bits(p), p, filter) : bits(p);
      forget(bias);
      return Float8{vfmaq_f32(vld1q_f32(bias), sum.low, multiplier.low),
                    vfmaq_f32(vld1q_f32(bias + 4), sum.high, multiplier.high)};
    };
    if constexpr (kLevels) {
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
        const int16x8_t levels = low_halves(level(p));
        if (p < pixel_count_) vst1q_s16(pixel(p, filter), levels);
      }
    } else if constexpr (!kBytes) {
      store_halves(filter, [&](int p) QPP_NEON_INLINE_LAMBDA {
        return narrow(kResidual ? with_residual(level(p), p, filter) : level(p));
      });
    } else {
      store_bytes(filter, [&](int p) QPP_NEON_INLINE_LAMBDA { return low_halves(level(p)); });
    }
  }

  /// For an int8 destination: integers(p) gives the levels of pixel p, which are yet to be clamped.
  template <typename Integers>
  QPP_NEON_INLINE void store_bytes(std::int64_t filter, const Integers& integers) {
    const int8x16_t lo = vld1q_dup_s8(&byte_lo_);
    const int8x16_t hi = vld1q_dup_s8(&byte_hi_);
    if constexpr (kPixels == 1) {
      const int8x8_t bytes = vqmovn_s16(integers(0));
      vst1_s8(pixel(0, filter), vmin_s8(vmax_s8(bytes, vget_low_s8(lo)), vget_low_s8(hi)));
      return;
    }
    int8x16_t pairs[(kPixels + 1) / 2];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; p += 2) {
      const int8x8_t even = vqmovn_s16(integers(p));
      const int8x16_t both = vqmovn_high_s16(even, integers(p + 1));
      pairs[p / 2] = vminq_s8(vmaxq_s8(both, lo), hi);
    }
    if (pixel_count_ == kPixels) {
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; p += 2) {
        vst1_s8(pixel(p, filter), vget_low_s8(pairs[p / 2]));
        store_high(pixel(p + 1, filter), pairs[p / 2]);
      }
      return;
    }
    std::int8_t bytes[kPixels * kFilters];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; p += 2) vst1q_s8(bytes + p * kFilters, pairs[p / 2]);
    for (std::int64_t p = 0; p < pixel_count_; ++p) {
      vst1_s8(pixel(p, filter), vld1_s8(bytes + p * kFilters));
    }
  }

  /// For an fp16 destination: levels(p) gives the levels of pixel p, which are yet to be clamped.
  /// Rounding is monotonic, so that it may come before.
  template <typename Levels>
  QPP_NEON_INLINE void store_halves(std::int64_t filter, const Levels& levels) {
    float16x8_t values[kPixels];
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p)
      values[p] = vminq_f16(vmaxq_f16(levels(p), half_lo_), half_hi_);
    if (pixel_count_ < kPixels) {
      half copy[kPixels * kFilters];
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) store(copy + p * kFilters, values[p]);
      for (std::int64_t p = 0; p < pixel_count_; ++p) {
        store_pixel(pixel(p, filter), load(copy + p * kFilters));
      }
      return;
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) store(pixel(p, filter), values[p]);
    if (stage_.range == nullptr) return;
    HalfRange range(values[0]);
#pragma GCC unroll 8
    for (int p = 1; p < kPixels; ++p) range.extend(values[p]);
    range_.extend(range);
  }

  /// Writes back the range of the stored values, if it is requested.
  QPP_NEON_INLINE void finish() const {
    if constexpr (std::is_same_v<Dst, half>) {
      if (stage_.range == nullptr) return;
      extend_range(*stage_.range, range_.reduce());
    }
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE Dst* pixel(std::int64_t p, std::int64_t filter) const {
    return dst_ + p * dst_stride_ + filter;
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 with_residual(const Float8& level, std::int64_t p,
                                                     std::int64_t filter) const {
    return stage_.residual.dtype == DType::qai8
               ? add_residual(stage_.residual, level, residual<std::int8_t>(p, filter))
               : add_residual(stage_.residual, level, residual<half>(p, filter));
  }

  /// Adds an int8 residual to magic-bias accumulators.
  [[nodiscard]] QPP_NEON_INLINE Float8 add_to_bits(const Float8& bits, std::int64_t p,
                                                   std::int64_t filter) const {
    const int16x8_t factor = vld1q_s16(stage_.residual.factor + filter);
    const int16x8_t r = vmovl_s8(vld1_s8(residual<std::int8_t>(p, filter)));
    return {vreinterpretq_f32_s32(
                vmlal_s16(vreinterpretq_s32_f32(bits.low), vget_low_s16(r), vget_low_s16(factor))),
            vreinterpretq_f32_s32(vmlal_high_s16(vreinterpretq_s32_f32(bits.high), r, factor))};
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 tanh_level(const Float8& level) const {
    const float32x4_t post_scale = vdupq_n_f32(stage_.post_scale);
    return {vmulq_f32(tanh_shared(level.low), post_scale),
            vmulq_f32(tanh_shared(level.high), post_scale)};
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 clamp(const Float8& level) const {
    const float32x4_t lo = vdupq_n_f32(stage_.lo);
    const float32x4_t hi = vdupq_n_f32(stage_.hi);
    return {clamp_level(level.low, lo, hi), clamp_level(level.high, lo, hi)};
  }

  QPP_NEON_INLINE void store_pixel(std::int8_t* dst, const Float8& level) const {
    const int8x16_t low_bytes = round_to_low_bytes(level);
    const int8x8_t zero_point = vdup_n_s8(static_cast<std::int8_t>(stage_.zero_point));
    vst1_s8(dst, vadd_s8(vget_low_s8(vuzp1q_s8(low_bytes, low_bytes)), zero_point));
  }

  QPP_NEON_INLINE void store_pixel(std::int16_t* dst, const Float8& level) const {
    const int16x8_t zero_point = vdupq_n_s16(static_cast<std::int16_t>(stage_.zero_point));
    vst1q_s16(dst, vaddq_s16(low_halves(round_to_low_bits(level)), zero_point));
  }

  QPP_NEON_INLINE void store_pixel(half* dst, const Float8& level) {
    store_pixel(dst, narrow(level));
  }

  QPP_NEON_INLINE void store_pixel(half* dst, float16x8_t level) {
    store(dst, level);
    if (stage_.range != nullptr) range_.extend(level);
  }

  /// ST1 of the high half: the compiler would move it to a low half first.
  QPP_NEON_INLINE static void store_high(std::int8_t* dst, int8x16_t value) {
    vst1q_lane_s64(reinterpret_cast<std::int64_t*>(dst), vreinterpretq_s64_s8(value), 1);
  }

  const OutputStage& stage_;
  Dst* dst_;
  const void* residual_;
  std::int64_t dst_stride_;
  std::int64_t pixel_count_;
  std::int8_t byte_lo_;  // bounds for magic-bias accumulators and int8
  std::int8_t byte_hi_;
  float16x8_t half_lo_;  // for fp16
  float16x8_t half_hi_;
  HalfRange range_;
};

}  // namespace qpp
