// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {

// mean = sum over p < pixels, c < channels of src[p * stride + c] / (pixels * channels)
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole pixels, padding included, which does not count
// registers      2 for the eight float sums of a block, 4 for the eight double totals
// loop budget    8 elements: 1 load, 4 FCVTL slots on V0, which bind: 4 cycles on A76 (0.5 per
// element)
//
// The order of additions is the contract's; a lane without an element adds zero.
void mean_f32_f16_neon(const MeanArgs& args) {
  // Without padding, all pixels are one.
  const bool dense = args.src.channels == args.src.stride;
  const std::int64_t pixels = dense ? 1 : args.src.pixels;
  const std::int64_t channels = dense ? args.src.pixels * args.src.channels : args.src.channels;
  const uint16x8_t lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  const uint16x8_t tail = vcltq_u16(lanes, vdupq_n_u16(static_cast<std::uint16_t>(channels % 8)));

  float64x2_t total[4] = {};
  Float8 block = {vdupq_n_f32(0), vdupq_n_f32(0)};
  std::int64_t vectors = 0;
  const auto flush = [&] {
    total[0] = vaddq_f64(total[0], vcvt_f64_f32(vget_low_f32(block.low)));
    total[1] = vaddq_f64(total[1], vcvt_high_f64_f32(block.low));
    total[2] = vaddq_f64(total[2], vcvt_f64_f32(vget_low_f32(block.high)));
    total[3] = vaddq_f64(total[3], vcvt_high_f64_f32(block.high));
    block = {vdupq_n_f32(0), vdupq_n_f32(0)};
    vectors = 0;
  };
  const auto add_vector = [&](float16x8_t value) {
    block = add(block, widen(value));
    if (++vectors == kMeanBlock) flush();
  };
  for (std::int64_t p = 0; p < pixels; ++p) {
    const half* src = args.src.data + p * args.src.stride;
    std::int64_t c = 0;
    for (; c + 8 <= channels; c += 8) add_vector(load(src + c));
    if (c < channels) add_vector(load_masked(src + c, tail));
  }
  flush();

  double sum = 0;
  for (const float64x2_t lanes_total : total) {
    sum += vgetq_lane_f64(lanes_total, 0);
    sum += vgetq_lane_f64(lanes_total, 1);
  }
  *args.mean = static_cast<float>(sum / static_cast<double>(args.src.pixels * args.src.channels));
}

}  // namespace qpp
