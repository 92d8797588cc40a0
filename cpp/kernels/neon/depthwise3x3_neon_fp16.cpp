// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/depthwise_store.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Calls store(dst, sum) for every pixel of the row, 8 channels from `c` on. Products are added up
/// in two chains, since one would mostly wait for itself.
template <typename Store>
QPP_NEON_INLINE void convolve(const DepthwiseArgs& args, std::int64_t c, const Store& store) {
  const std::int64_t pixel = args.channels;
  const half* packed = static_cast<const half*>(args.weights) + c * 9;
  float16x8_t weights[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) weights[tap] = load(packed + tap * 8);
  const half* rows[3];
  for (int r = 0; r < 3; ++r) rows[r] = static_cast<const half*>(args.rows[r]) + c;
  half* dst = static_cast<half*>(args.dst) + c;
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    const std::int64_t at = p * args.stride * pixel;
    const auto source = [&](int tap) { return load(rows[tap / 3] + at + tap % 3 * pixel); };
    float16x8_t even = vmulq_f16(source(0), weights[0]);
    float16x8_t odd = vmulq_f16(source(1), weights[1]);
#pragma GCC unroll 7
    for (int tap = 2; tap < 9; ++tap) {
      float16x8_t& sum = tap % 2 == 0 ? even : odd;
      sum = vfmaq_f16(sum, source(tap), weights[tap]);
    }
    store(dst + p * pixel, vaddq_f16(even, odd));
  }
}

}  // namespace

// dst[p][c] = output( sum over ky, kx of
//                     rows[ky][(p * stride + kx) * channels + c] * weights[c][ky * 3 + kx] )
//
// rows, dst      fp16, NHWC; weights [c / 8][9][c % 8] fp16
// preconditions  channels % 8 == 0; reads (pixel_count - 1) * stride + 3 pixels of each row, writes
//                pixel_count of dst
// precision      nine products summed in fp16; where a multiplier or tanh follows, then widened
// registers      9 weights, 2 sums, 3 for the output (7 where it is widened), 4 others
// loop budget    8 channels of a pixel: 9 loads, 2 FMUL, 7 FMLA, 2 FADD, FMAX, FMIN, 1 store: 14
//                slots, 7 cycles on A76 (0.9 an output element)
void depthwise3x3_f16_f16_f16_neon_fp16(const DepthwiseArgs& args) {
  const OutputStage& stage = *args.output;
  const bool widens = stage.multiplier != nullptr || stage.nonlinearity != Nonlinearity::clamp;
  const float16x8_t lo = vdupq_n_f16(static_cast<float16_t>(stage.lo));
  const float16x8_t hi = vdupq_n_f16(static_cast<float16_t>(stage.hi));
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    if (widens) {
      const ChannelOutput output(stage, c);
      convolve(args, c, [&](half* dst, float16x8_t sum) QPP_NEON_INLINE_LAMBDA {
        output.store(widen(sum), dst);
      });
    } else {
      const float16x8_t bias = narrow(load(stage.bias + c));
      convolve(args, c, [&](half* dst, float16x8_t sum) QPP_NEON_INLINE_LAMBDA {
        store(dst, vminq_f16(vmaxq_f16(vaddq_f16(sum, bias), lo), hi));
      });
    }
  }
}

}  // namespace qpp
