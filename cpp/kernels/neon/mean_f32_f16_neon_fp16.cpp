// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Averages of pairs, summed as statistics.h says: in float over a block, and blocks in double.
class BlockSums {
 public:
  QPP_NEON_INLINE void add_pair(float16x8_t first, float16x8_t second) {
    const float16x8_t one_half = vdupq_n_f16(static_cast<float16_t>(0.5F));
    block_ = add(block_, widen(vfmaq_f16(vmulq_f16(first, one_half), second, one_half)));
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

  Float8 block_ = {vdupq_n_f32(0), vdupq_n_f32(0)};
  float64x2_t totals_[4] = {};
  std::int64_t pairs_ = 0;
};

/// The sum over successive elements, whose number is a multiple of 8.
double sum_dense(const half* src, std::int64_t elements) {
  BlockSums sums;
  std::int64_t i = 0;
  for (; i + 16 <= elements; i += 16) sums.add_pair(load(src + i), load(src + i + 8));
  if (i < elements) sums.add_pair(load(src + i), vdupq_n_f16(0));
  return sums.total();
}

/// The sum over the first channels of every pixel; a pair may be of two pixels.
double sum_pixels(const StatisticsSource& src) {
  const uint16x8_t lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  const uint16x8_t tail =
      vcltq_u16(lanes, vdupq_n_u16(static_cast<std::uint16_t>(src.channels % 8)));
  BlockSums sums;
  float16x8_t first = vdupq_n_f16(0);
  bool has_first = false;
  const auto add_vector = [&](float16x8_t vector) QPP_NEON_INLINE_LAMBDA {
    if (has_first) sums.add_pair(first, vector);
    first = vector;
    has_first = !has_first;
  };
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    const half* pixel = src.data + p * src.stride;
    std::int64_t c = 0;
    for (; c + 8 <= src.channels; c += 8) add_vector(load(pixel + c));
    if (c < src.channels) add_vector(load_masked(pixel + c, tail));
  }
  if (has_first) add_vector(vdupq_n_f16(0));
  return sums.total();
}

}  // namespace

// mean = sum over p < pixels, c < channels of src[p * stride + c] / (pixels * channels)
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole pixels, padding included, which does not count
// registers      2 for the eight float sums of a block, 4 for the eight double totals
// loop budget    16 elements: 2 loads, FMUL, FMLA, 4 FCVTL slots on V0, which bind, 2 FADD: 4
// cycles
//                on A76 (0.25 an element)
//
// The steps and their order are the contract's; a lane without an element adds zero.
void mean_f32_f16_neon_fp16(const MeanArgs& args) {
  const StatisticsSource& src = args.src;
  const std::int64_t elements = src.pixels * src.channels;
  const double sum = src.channels == src.stride ? sum_dense(src.data, elements) : sum_pixels(src);
  *args.mean = static_cast<float>(2 * sum / static_cast<double>(elements));
}

}  // namespace qpp
