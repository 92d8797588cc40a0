// SPDX-License-Identifier: Apache-2.0
#include "kernels/mean_of_pairs.h"
#include "kernels/neon/vectors.h"

namespace qpp {
namespace {

/// Averages of pairs, summed as described in statistics.h: in float over a block, and blocks in
/// double.
class BlockSums {
 public:
  using Vector = float16x8_t;

  QPP_NEON_INLINE explicit BlockSums(std::int64_t tail)
      : tail_(vcltq_u16(uint16x8_t{0, 1, 2, 3, 4, 5, 6, 7},
                        vdupq_n_u16(static_cast<std::uint16_t>(tail)))) {}

  QPP_NEON_INLINE static float16x8_t zero() { return vdupq_n_f16(0); }
  QPP_NEON_INLINE static float16x8_t load(const half* src) { return qpp::load(src); }
  QPP_NEON_INLINE float16x8_t load_tail(const half* src) const { return load_masked(src, tail_); }
  QPP_NEON_INLINE void add_pair(float16x8_t first, float16x8_t second) {
    const float16x8_t one_half = vdupq_n_f16(static_cast<float16_t>(0.5F));
    block_ = add(block_, to_float32(vfmaq_f16(vmulq_f16(first, one_half), second, one_half)));
    if (++pairs_ == kMeanBlock) flush();
  }
  QPP_NEON_INLINE double total() {
    flush();
    double sum = 0;
    for (const float64x2_t lanes : totals_) {
      sum += vgetq_lane_f64(lanes, 0);
      sum += vgetq_lane_f64(lanes, 1);
    }
    return sum;
  }

 private:
  QPP_NEON_INLINE void flush() {
    totals_[0] = vaddq_f64(totals_[0], vcvt_f64_f32(vget_low_f32(block_.low)));
    totals_[1] = vaddq_f64(totals_[1], vcvt_high_f64_f32(block_.low));
    totals_[2] = vaddq_f64(totals_[2], vcvt_f64_f32(vget_low_f32(block_.high)));
    totals_[3] = vaddq_f64(totals_[3], vcvt_high_f64_f32(block_.high));
    block_ = {vdupq_n_f32(0), vdupq_n_f32(0)};
    pairs_ = 0;
  }

  uint16x8_t tail_;
  Float8 block_ = {vdupq_n_f32(0), vdupq_n_f32(0)};
  float64x2_t totals_[4] = {};
  std::int64_t pairs_ = 0;
};

}  // namespace

// mean = sum over p < pixels, c < channels of src[p * stride + c] / (pixels * channels)
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole pixels, padding included, which does not count
// registers      2 for the eight float sums of a block, 4 for the eight double totals
// loop budget    16 elements: 2 loads, FMUL, FMLA, 4 FCVTL slots on V0, which bind, 2 FADD: 4
//                cycles on A76 (0.25 an element)
//
// The steps and their order are the contract's; a lane without an element adds zero.
void mean_f32_f16_neon_fp16(const MeanArgs& args) { mean_of_pairs<BlockSums>(args); }

}  // namespace qpp
