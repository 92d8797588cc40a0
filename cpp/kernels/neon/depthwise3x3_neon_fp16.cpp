// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/depthwise_store.h"
#include "kernels/variants.h"

namespace qpp {

// dst[p][c] = output( sum over ky, kx of
//                     rows[ky][(p * stride + kx) * channels + c] * weights[c][ky * 3 + kx] )
//
// rows, dst      fp16, NHWC; weights [c / 8][9][c % 8] fp16
// preconditions  channels % 8 == 0; reads (pixel_count - 1) * stride + 3 pixels of each row, writes
//                pixel_count of dst
// precision      nine products summed in fp16, then widened
// registers      9 weights, 2 sums, 7 for the output stage, 4 others
// loop budget    8 channels of a pixel: 9 loads, FMUL, 8 FMLA, FCVTL 2 and FCVTN 2 of two slots, 2
//                FMLA, 4 FMAX/FMIN, 1 store: 24 slots, 12 cycles on A76 (1.5 an output element)
void depthwise3x3_f16_f16_f16_neon_fp16(const DepthwiseArgs& args) {
  const std::int64_t pixel = args.channels;
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    const half* packed = static_cast<const half*>(args.weights) + c * 9;
    float16x8_t weights[9];
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) weights[tap] = load(packed + tap * 8);
    const ChannelOutput output(*args.output, c);
    const half* rows[3];
    for (int r = 0; r < 3; ++r) rows[r] = static_cast<const half*>(args.rows[r]) + c;
    half* dst = static_cast<half*>(args.dst) + c;
    for (std::int64_t p = 0; p < args.pixel_count; ++p) {
      const std::int64_t at = p * args.stride * pixel;
      float16x8_t sum = vmulq_f16(load(rows[0] + at), weights[0]);
#pragma GCC unroll 8
      for (int tap = 1; tap < 9; ++tap)
        sum = vfmaq_f16(sum, load(rows[tap / 3] + at + tap % 3 * pixel), weights[tap]);
      output.store(widen(sum), dst + p * pixel);
    }
  }
}

}  // namespace qpp
