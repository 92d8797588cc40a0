// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/depthwise_store.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Three pixels of a column for 8 channels, those of a channel together: [r0 r1 r2 r2].
struct Column {
  int8x16_t low;
  int8x16_t high;
};

QPP_NEON_INLINE Column load_column(const std::int8_t* const* rows, std::int64_t at) {
  const int8x16_t r0 = vcombine_s8(vld1_s8(rows[0] + at), vdup_n_s8(0));
  const int8x16_t r1 = vcombine_s8(vld1_s8(rows[1] + at), vdup_n_s8(0));
  const int8x16_t r2 = vcombine_s8(vld1_s8(rows[2] + at), vdup_n_s8(0));
  const int16x8_t upper = vreinterpretq_s16_s8(vzip1q_s8(r0, r1));
  const int16x8_t lower = vreinterpretq_s16_s8(vzip1q_s8(r2, r2));
  return {vreinterpretq_s8_s16(vzip1q_s16(upper, lower)),
          vreinterpretq_s8_s16(vzip2q_s16(upper, lower))};
}

/// One row of the output, 8 channels after the other. With stride 1 two columns of a window, with
/// stride 2 one, serve the next window as well.
template <typename Dst, int kStride>
void convolve(const DepthwiseArgs& args) {
  const std::int64_t pixel = args.channels;
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    const auto* weights = static_cast<const std::int8_t*>(args.weights) + c * 12;
    const std::int8_t* rows[3];
    for (int r = 0; r < 3; ++r) rows[r] = static_cast<const std::int8_t*>(args.rows[r]) + c;
    const ChannelOutput output(*args.output, c);
    const int8x16_t w0 = vld1q_s8(weights);
    const int8x16_t w1 = vld1q_s8(weights + 16);
    const int8x16_t w2 = vld1q_s8(weights + 32);
    const int8x16_t w3 = vld1q_s8(weights + 48);
    const int8x16_t w4 = vld1q_s8(weights + 64);
    const int8x16_t w5 = vld1q_s8(weights + 80);
    auto* dst = static_cast<Dst*>(args.dst) + c;
    const std::int32_t* correction = args.output->correction + c;

    const auto finish = [&](const Column& left, const Column& middle, const Column& right,
                            std::int64_t p) {
      const std::int32_t* start = correction;
      forget(start);
      int32x4_t low = vdotq_s32(vld1q_s32(start), left.low, w0);
      int32x4_t high = vdotq_s32(vld1q_s32(start + 4), left.high, w1);
      low = vdotq_s32(low, middle.low, w2);
      high = vdotq_s32(high, middle.high, w3);
      low = vdotq_s32(low, right.low, w4);
      high = vdotq_s32(high, right.high, w5);
      output.store(Float8{vcvtq_f32_s32(low), vcvtq_f32_s32(high)}, dst + p * pixel);
    };
    Column first = load_column(rows, 0);
    if constexpr (kStride == 1) {
      Column second = load_column(rows, pixel);
      for (std::int64_t p = 0; p < args.pixel_count; ++p) {
        const Column third = load_column(rows, (p + 2) * pixel);
        finish(first, second, third, p);
        first = second;
        second = third;
      }
    } else {
      for (std::int64_t p = 0; p < args.pixel_count; ++p) {
        const Column second = load_column(rows, (2 * p + 1) * pixel);
        const Column third = load_column(rows, (2 * p + 2) * pixel);
        finish(first, second, third, p);
        first = third;
      }
    }
  }
}

template <typename Dst>
void convolve(const DepthwiseArgs& args) {
  return args.stride == 1 ? convolve<Dst, 1>(args) : convolve<Dst, 2>(args);
}

}  // namespace

// dst[p][c] = output( correction[c] + sum over ky, kx of
//                     rows[ky][(p * stride + kx) * channels + c] * weights[c][ky][kx] )
//
// rows, dst      int8, NHWC; weights [c / 8][kx][c % 8][4] int8, see depthwise.h
// preconditions  channels % 8 == 0, stride 1 or 2; reads (pixel_count - 1) * stride + 3 pixels of
//                each row, writes pixel_count of dst
// registers      6 weights, 6 columns, 2 sums, 7 for the output stage, 6 others
// loop budget    8 channels of a pixel: 3 loads and 4 ZIP for each new column, 6 SDOT, 2 SCVTF of
// two
//                slots, 2 FMLA, 4 FMAX/FMIN, 2 FADD, 2 UZP, 1 ADD, 1 store and 4 moves of
//                constants: stride 1 30 slots, 15 cycles on A76 (1.9 an output element), stride 2
//                34 slots, 17 cycles (2.1)
void depthwise3x3_qai8_qai8_qsi8cx_neon_dotprod(const DepthwiseArgs& args) {
  convolve<std::int8_t>(args);
}

// The same with half(level) as output: 2 FCVTN of two slots in place of rounding.
//
// loop budget    stride 1 29 slots, 14.5 cycles on A76 (1.8 an output element)
void depthwise3x3_f16_qai8_qsi8cx_neon_dotprod(const DepthwiseArgs& args) { convolve<half>(args); }

}  // namespace qpp
