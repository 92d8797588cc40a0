// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/neon/depthwise_blocks.h"
#include "kernels/neon/depthwise_store.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// The sums of kPixels output pixels of an unrolled kernel, from `start` on.
template <int kSize, int kStride, typename Source, int kPixels>
QPP_NEON_INLINE void add_all(const Source& columns, const half* const (&rows)[kSize],
                             const float16x8_t (&held)[9], const half* weights,
                             float16x8_t (&sums)[kPixels]) {
  forget(weights);
#pragma GCC unroll 5
  for (int ky = 0; ky < kSize; ++ky) {
    const std::byte* begin = columns.begin(rows[ky]);
    float16x8_t taps[kSize];
#pragma GCC unroll 5
    for (int kx = 0; kx < kSize; ++kx)
      taps[kx] = kSize == 3 ? held[ky * 3 + kx] : load(weights + (ky * kSize + kx) * 8);
    constexpr int kColumns = (kPixels - 1) * kStride + kSize;
#pragma GCC unroll 11
    for (int k = 0; k < kColumns; ++k) {
      const float16x8_t source = load(columns.at(begin, k, kColumns));
#pragma GCC unroll 4
      for (int q = 0; q < kPixels; ++q) {
        const int kx = k - q * kStride;
        if (kx >= 0 && kx < kSize) sums[q] = vfmaq_f16(sums[q], source, taps[kx]);
      }
    }
  }
}

/// The same of any kernel, in two chains: of the even rows and of the odd ones.
template <typename Source, int kPixels>
QPP_NEON_INLINE void add_all(const DepthwiseArgs& args, const Source& columns, std::int64_t c,
                             const half* weights, float16x8_t (&sums)[kPixels]) {
  float16x8_t odd[kPixels];
  for (float16x8_t& sum : odd) sum = vdupq_n_f16(0);
  for (std::int64_t ky = 0; ky < args.kernel_height; ++ky) {
    const std::byte* begin = columns.begin(static_cast<const half*>(args.rows[ky]) + c);
    const auto add_row = [&](float16x8_t(&chains)[kPixels]) {
      for (std::int64_t kx = 0; kx < args.kernel_width; ++kx) {
        const float16x8_t tap = load(weights + kx * 8);
#pragma GCC unroll 4
        for (int q = 0; q < kPixels; ++q) {
          const float16x8_t source =
              load(columns.at(begin, q * args.stride + kx * args.dilation, 0));
          chains[q] = vfmaq_f16(chains[q], source, tap);
        }
      }
    };
    if (ky % 2 == 0) {
      add_row(sums);
    } else {
      add_row(odd);
    }
    weights += args.kernel_width * 8;
  }
  for (int q = 0; q < kPixels; ++q) sums[q] = vaddq_f16(sums[q], odd[q]);
}

/// A row of the output for 8 channels from `c` on. Calls store(dst, sum); sums begin at `start`.
template <int kSize, int kStride, typename Store>
QPP_NEON_INLINE void convolve(const DepthwiseArgs& args, std::int64_t c, const half* start,
                              const Store& store) {
  const half* weights =
      static_cast<const half*>(args.weights) + c * args.kernel_height * args.kernel_width;
  const half* rows[kSize == 0 ? 1 : kSize];
  float16x8_t held[9];
  if constexpr (kSize > 0) {
#pragma GCC unroll 5
    for (int ky = 0; ky < kSize; ++ky) rows[ky] = static_cast<const half*>(args.rows[ky]) + c;
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) held[tap] = load(weights + tap * 8);
  }
  for_depthwise_blocks(args,
                       [&](auto pixels, auto border, std::int64_t first) QPP_NEON_INLINE_LAMBDA {
                         constexpr int kTested = kSize / 2;
                         const Columns<half, border(), kTested> columns(args, c, first);
                         float16x8_t sums[pixels()];
#pragma GCC unroll 4
                         for (float16x8_t& sum : sums) {
                           const half* own = start;
                           forget(own);
                           sum = load(own);
                         }
                         if constexpr (kSize > 0) {
                           add_all<kSize, kStride>(columns, rows, held, weights, sums);
                         } else {
                           add_all(args, columns, c, weights, sums);
                         }
                         half* dst = static_cast<half*>(args.dst) + first * args.channels + c;
#pragma GCC unroll 4
                         for (const float16x8_t& sum : sums) {
                           store(dst, sum);
                           dst += args.channels;
                         }
                       });
}

/// Of eight channels: few layers have a channel with another.
QPP_NEON_INLINE bool has_unit_multipliers(const OutputStage& stage, std::int64_t channel) {
  return stage.multiplier == nullptr ||
         std::all_of(stage.multiplier + channel, stage.multiplier + channel + 8,
                     [](float multiplier) { return multiplier == 1; });
}

}  // namespace

// dst[p][c] = output( sum over ky, kx of window(p, ky, kx)[c] * weights[c][ky][kx] ), see
// depthwise.h
//
// rows, dst      fp16, NHWC; weights [c / 8][ky][kx][c % 8] fp16
// preconditions  channels % 8 == 0; reads `width` pixels of each row and one of padding, writes
//                pixel_count of dst
// precision      products are added in fp16 in chains of at most 32, to the bias, or, where a
//                multiplier or tanh follows, to nothing and then converted
// registers      9 weights (5x5: those of a row), 4 sums, 1 for the source, 2 for the bounds
// loop budget    4 pixels of 8 channels, 3x3: 22 loads (stride 2: 31), 36 FMLA, 4 FMAX, 4 FMIN, 4
//                stores: 48 slots, 24 cycles on A76 (0.75 an output element); 5x5: 69 loads, 112
//                slots (1.75; stride 2: 84 loads)
void depthwise_f16_f16_f16_neon_fp16(const DepthwiseArgs& args) {
  choose_depthwise_shape(args, [&args](auto size, auto stride) {
    const DepthwiseArgs own = args;
    const OutputStage& stage = *own.output;
    const float16x8_t lo = vdupq_n_f16(static_cast<float16_t>(stage.lo));
    const float16x8_t hi = vdupq_n_f16(static_cast<float16_t>(stage.hi));
    half start[8] = {};
    for (std::int64_t c = 0; c < own.channels; c += 8) {
      if (!has_unit_multipliers(stage, c) || stage.nonlinearity != Nonlinearity::clamp) {
        ChannelOutput<size() == 0> output(stage, c);
        convolve<0, 0>(own, c, start, [&](half* dst, float16x8_t sum) QPP_NEON_INLINE_LAMBDA {
          output.store({to_float32(sum)}, dst, 0);
        });
      } else {
        store(start, narrow(load(stage.bias + c)));
        convolve<size(), stride()>(own, c, start,
                                   [&](half* dst, float16x8_t sum) QPP_NEON_INLINE_LAMBDA {
                                     store(dst, vminq_f16(vmaxq_f16(sum, lo), hi));
                                   });
      }
    }
  });
}

}  // namespace qpp
