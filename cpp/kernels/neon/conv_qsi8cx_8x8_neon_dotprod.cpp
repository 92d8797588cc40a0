// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/neon/block_output.h"
#include "kernels/neon/conv_source.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kPixels = 8;
constexpr int kFilters = 8;
constexpr int kChannels = 4;  // that one lane of SDOT sums up

/// Four channels of a pixel in lane 0.
QPP_NEON_INLINE int8x16_t load_four(const std::int8_t* src) {
  std::int32_t four = 0;
  std::memcpy(&four, src, sizeof(four));
  return vreinterpretq_s8_s32(vsetq_lane_s32(four, vdupq_n_s32(0), 0));
}

/// Eight channels of a pixel in lanes 0 and 1.
QPP_NEON_INLINE int8x16_t load_eight(const std::int8_t* src) {
  return vcombine_s8(vld1_s8(src), vdup_n_s8(0));
}

/// Four channels of all pixels times eight filters: 16 SDOTs.
template <int kLane>
QPP_NEON_INLINE void accumulate(int32x4_t (&sums)[kPixels][2], const int8x16_t (&pixels)[kPixels],
                                const std::int8_t* weights) {
  const int8x16_t low = vld1q_s8(weights);
  const int8x16_t high = vld1q_s8(weights + 16);
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) sums[p][0] = vdotq_laneq_s32(sums[p][0], low, pixels[p], kLane);
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
    sums[p][1] = vdotq_laneq_s32(sums[p][1], high, pixels[p], kLane);
  }
}

/// Accumulators of a pixel from the sums of its sparse part, conv.h.
QPP_NEON_INLINE void start_sparse(int32x4_t (&sums)[2], const half* sparse,
                                  const std::int32_t* correction, bool float_sums) {
  const Float8 wide = widen(load(sparse));
  const float32x4_t unit = vdupq_n_f32(kSparseUnit);
  const int32x4_t low = vld1q_s32(correction);
  const int32x4_t high = vld1q_s32(correction + 4);
  if (float_sums) {
    sums[0] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(low), wide.low, unit));
    sums[1] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(high), wide.high, unit));
  } else {
    sums[0] = vaddq_s32(low, vcvtnq_s32_f32(vmulq_f32(wide.low, unit)));
    sums[1] = vaddq_s32(high, vcvtnq_s32_f32(vmulq_f32(wide.high, unit)));
  }
}

// dst[p, f] = output(correction[f] + sum over tap, c of src[p, tap][c] * weights[f][tap][c])
//
// src            int8 NHWC; a pixel of `channels` elements per tap, found as conv_source.h tells
// weights        int8, (f, tap, c) at [f / 8][tap][c / 4][f % 8][c % 4]
// dst            int8, int16 or fp16, (p, f) at p * dst_stride + f
// preconditions  channels % 4 == 0, filters % 8 == 0, output->correction is there; no over-read
// registers      16 for the sums (pixel p, filters 4h .. 4h + 3), 8 for 16 channels of the pixels,
//                2 to 8 for weights; general: 8 sources, weights, channel; none is spilled in the
//                loop
// loop budget    16 channels: 16 loads, 64 SDOT (1024 MACs), bound by both vector pipes: 32 cycles
//                on A76. Output of a block as int8, the shorter way: 52 slots of the vector pipes
//                (16 FMLA, 8 UZP1, 8 SQXTN, which V1 alone takes, 8 SMAX/SMIN, 8 stores): 26 cycles
// choices        modelled A76, 576 products: 1215 cycles a block, 95 % of peak. Sums and biases are
//                loaded anew (forget), since 30 register moves in their place cost 15 cycles
template <typename Dst, template <typename, int> typename Source>
QPP_NEON_INLINE void conv_8x8(const ConvArgs& args) {
  constexpr int kStep = kFilters * kChannels;  // weights of four channels
  BlockOutput<Dst> output(args);
  const auto* weights = static_cast<const std::int8_t*>(args.weights);

  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    int32x4_t sums[kPixels][2];
    const std::int32_t* correction = args.output->correction + filter;
    if (args.sparse == nullptr) {
#pragma GCC unroll 8
      for (auto& pixel : sums) {
        forget(correction);
        pixel[0] = vld1q_s32(correction);
        pixel[1] = vld1q_s32(correction + 4);
      }
    } else {
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
        forget(correction);
        const std::int64_t valid = p < args.pixel_count ? p : 0;
        start_sparse(sums[p], args.sparse + valid * args.filters + filter, correction,
                     output.stage().float_sums);
      }
    }

    for (Source<std::int8_t, kPixels> source(args); source.valid(); source.next()) {
      const std::int8_t* src[kPixels];
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) src[p] = source.pixel(p);
      int8x16_t pixels[kPixels];
      const std::int64_t channels = source.channels();
      std::int64_t c = 0;
      for (; c + 16 <= channels; c += 16) {
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) pixels[p] = vld1q_s8(src[p] + c);
        accumulate<0>(sums, pixels, weights);
        accumulate<1>(sums, pixels, weights + kStep);
        accumulate<2>(sums, pixels, weights + 2 * kStep);
        accumulate<3>(sums, pixels, weights + 3 * kStep);
        weights += 4 * kStep;
      }
      const std::int64_t rest = channels - c;
      if (rest == 0) continue;
      if (rest > 8) {
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) pixels[p] = vld1q_s8(src[p] + c);
      } else if (rest > 4) {
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) pixels[p] = load_eight(src[p] + c);
      } else {
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) pixels[p] = load_four(src[p] + c);
      }
      accumulate<0>(sums, pixels, weights);
      if (rest > 4) accumulate<1>(sums, pixels, weights + kStep);
      if (rest > 8) accumulate<2>(sums, pixels, weights + 2 * kStep);
      weights += rest / kChannels * kStep;
    }

    if (output.stage().float_sums) {
      output.store_float_sums(filter, [&sums](int p) {
        return Float8{vreinterpretq_f32_s32(sums[p][0]), vreinterpretq_f32_s32(sums[p][1])};
      });
    } else {
      output.store_block(filter, [&sums](int p) {
        return Float8{vcvtq_f32_s32(sums[p][0]), vcvtq_f32_s32(sums[p][1])};
      });
    }
  }
  output.finish();
}

}  // namespace

void conv_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int8_t, PointerSource>(args);
}
void conv_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<half, PointerSource>(args);
}
void conv_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int16_t, PointerSource>(args);
}
void conv3x3s1_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int16_t, Interior3x3Source>(args);
}
void conv3x3s1_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int8_t, Interior3x3Source>(args);
}
void conv3x3s1_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<half, Interior3x3Source>(args);
}

}  // namespace qpp
