// SPDX-License-Identifier: Apache-2.0
//
// The output stage of the depthwise kernels: 8 channels of some pixels.
#pragma once

#include "kernels/depthwise.h"
#include "kernels/neon/output_stage_neon.h"

namespace qpp {

/// One object per 8 channels of a row. kTanh: the stage may ask for it.
template <bool kTanh>
class ChannelOutput {
 public:
  QPP_NEON_INLINE ChannelOutput(const OutputStage& stage, std::int64_t channel)
      : multiplier_(stage.multiplier == nullptr ? Float8{vdupq_n_f32(1), vdupq_n_f32(1)}
                                                : load(stage.multiplier + channel)),
        bias_(stage.bias + channel),
        tanh_(stage.nonlinearity == Nonlinearity::tanh),
        post_scale_(vdupq_n_f32(stage.post_scale)),
        lo_(vdupq_n_f32(stage.lo)),
        hi_(vdupq_n_f32(stage.hi)),
        zero_point_(vdupq_n_s8(static_cast<std::int8_t>(stage.zero_point))) {}

  /// The outputs of kPixels pixels, which are `pixel` elements apart.
  template <int kPixels>
  QPP_NEON_INLINE void store(const Float8 (&sums)[kPixels], std::int8_t* dst, std::int64_t pixel) {
    constexpr int kPairs = kPixels / 2;
#pragma GCC unroll 2
    for (int i = 0; i < kPairs; ++i) {
      const int8x16_t bytes = vaddq_s8(vuzp1q_s8(round_to_low_bytes(level(sums[2 * i])),
                                                 round_to_low_bytes(level(sums[2 * i + 1]))),
                                       zero_point_);
      vst1_s8(dst + 2 * i * pixel, vget_low_s8(bytes));
      vst1_s8(dst + (2 * i + 1) * pixel, vget_high_s8(bytes));
    }
    if constexpr (kPixels % 2 == 1) {
      const int8x16_t bytes = round_to_low_bytes(level(sums[kPixels - 1]));
      vst1_s8(dst + (kPixels - 1) * pixel,
              vget_low_s8(vaddq_s8(vuzp1q_s8(bytes, bytes), zero_point_)));
    }
  }

  template <int kPixels>
  QPP_NEON_INLINE void store(const Float8 (&sums)[kPixels], half* dst, std::int64_t pixel) {
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) qpp::store(dst + i * pixel, narrow(level(sums[i])));
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE Float8 level(const Float8& sums) {
    forget(bias_);
    Float8 level = {vfmaq_f32(vld1q_f32(bias_), sums.low, multiplier_.low),
                    vfmaq_f32(vld1q_f32(bias_ + 4), sums.high, multiplier_.high)};
    if (kTanh && tanh_) {
      level = {vmulq_f32(tanh_shared(level.low), post_scale_),
               vmulq_f32(tanh_shared(level.high), post_scale_)};
    }
    return {clamp_level(level.low, lo_, hi_), clamp_level(level.high, lo_, hi_)};
  }

  Float8 multiplier_;
  const float* bias_;
  bool tanh_;
  float32x4_t post_scale_;
  float32x4_t lo_;
  float32x4_t hi_;
  int8x16_t zero_point_;
};

}  // namespace qpp
