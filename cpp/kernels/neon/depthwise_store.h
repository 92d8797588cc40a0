// SPDX-License-Identifier: Apache-2.0
//
// The output stage of the depthwise kernels: 8 channels of one pixel.
#pragma once

#include "kernels/depthwise.h"
#include "kernels/neon/output_stage_neon.h"

namespace qpp {

/// One object serves 8 channels of a row.
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
        zero_point_(vdup_n_s8(static_cast<std::int8_t>(stage.zero_point))) {}

  QPP_NEON_INLINE void store(const Float8& sums, std::int8_t* dst) const {
    const int8x16_t bytes = round_to_low_bytes(level(sums));
    vst1_s8(dst, vadd_s8(vget_low_s8(vuzp1q_s8(bytes, bytes)), zero_point_));
  }

  QPP_NEON_INLINE void store(const Float8& sums, half* dst) const {
    qpp::store(dst, narrow(level(sums)));
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE Float8 level(const Float8& sums) const {
    const float* bias = bias_;
    forget(bias);
    Float8 level = {vfmaq_f32(vld1q_f32(bias), sums.low, multiplier_.low),
                    vfmaq_f32(vld1q_f32(bias + 4), sums.high, multiplier_.high)};
    if (tanh_) {
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
  int8x8_t zero_point_;
};

}  // namespace qpp
