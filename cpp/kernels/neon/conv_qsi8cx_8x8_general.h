// SPDX-License-Identifier: Apache-2.0
//
// The general path of the int8 convolution conv_qsi8cx_8x8_neon_dotprod.cpp: any output stage, any
// number of pixels. A function of the .S file sums a block; BlockOutput stores it.
#pragma once

#include <cstring>

#include "kernels/neon/block_output.h"
#include "kernels/neon/conv_source.h"

namespace qpp {
namespace {

constexpr int kPixels = 8;
constexpr int kFilters = 8;
static_assert(kSparseUnit == 16);  // as in the .S file

/// Where the sums of a block start: at start[f] for all pixels, at start[p * 8 + f] for each pixel,
/// or at start[f] plus the sparse part. `half` is the first with four empty filters.
enum class Start : std::uint8_t { same, each, sparse, half };

// The functions of the .S file have a calling convention of their own: operands are pinned to its
// registers, and the clobbers list the registers that it changes.
// NOLINTBEGIN(bugprone-macro-parentheses): they would end the string
#define QPP_SUM_BLOCK(function)                                                                   \
  asm volatile("bl " function                                                                     \
               : "+r"(next_weights), "+r"(next_sparse), "=w"(low0), "=w"(low1), "=w"(low2),       \
                 "=w"(low3), "=w"(low4), "=w"(low5), "=w"(low6), "=w"(low7), "=w"(high0),         \
                 "=w"(high1), "=w"(high2), "=w"(high3), "=w"(high4), "=w"(high5), "=w"(high6),    \
                 "=w"(high7)                                                                      \
               : "r"(pixels), "r"(count), "r"(channels), "r"(first), "r"(sparse_step)             \
               : "x5", "x6", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",  \
                 "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", \
                 "v12", "v13", "v14", "v15", "cc", "memory")
// NOLINTEND(bugprone-macro-parentheses)

/// Sums of a block. `weights` moves on to the next one.
template <Start kStart, typename Runs>
QPP_NEON_INLINE void sum_block(const Runs& runs, const ConvArgs& args, std::int64_t filter,
                               const std::int32_t* start, const std::int8_t*& weights,
                               int32x4_t (&sums)[kPixels][2]) {
  register const std::int8_t* next_weights asm("x0") = weights;
  register const void* const* pixels asm("x1") = runs.pixels();
  register std::int64_t count asm("x2") = runs.count();
  register std::int64_t channels asm("x3") = runs.channels();
  register const std::int32_t* first asm("x4") = start;
  register const half* next_sparse asm("x7") =
      kStart == Start::sparse ? args.sparse + filter : nullptr;
  register std::int64_t sparse_step asm("x19") =
      args.filters * static_cast<std::int64_t>(sizeof(half));
  register int32x4_t low0 asm("v16");
  register int32x4_t low1 asm("v17");
  register int32x4_t low2 asm("v18");
  register int32x4_t low3 asm("v19");
  register int32x4_t low4 asm("v20");
  register int32x4_t low5 asm("v21");
  register int32x4_t low6 asm("v22");
  register int32x4_t low7 asm("v23");
  register int32x4_t high0 asm("v24");
  register int32x4_t high1 asm("v25");
  register int32x4_t high2 asm("v26");
  register int32x4_t high3 asm("v27");
  register int32x4_t high4 asm("v28");
  register int32x4_t high5 asm("v29");
  register int32x4_t high6 asm("v30");
  register int32x4_t high7 asm("v31");
  if constexpr (kStart == Start::half) {
    QPP_SUM_BLOCK("qpp_sdot_block_half");
  } else if constexpr (kStart == Start::sparse) {
    QPP_SUM_BLOCK("qpp_sdot_block_sparse");
  } else if constexpr (kStart == Start::each) {
    QPP_SUM_BLOCK("qpp_sdot_block_each");
  } else {
    QPP_SUM_BLOCK("qpp_sdot_block");
  }
  weights = next_weights;
  const int32x4_t low[] = {low0, low1, low2, low3, low4, low5, low6, low7};
  const int32x4_t high[] = {high0, high1, high2, high3, high4, high5, high6, high7};
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
    sums[p][0] = low[p];
    sums[p][1] = high[p];
  }
}

#undef QPP_SUM_BLOCK

/// Where the sums of a block start with a sparse part (conv.h), in the rarer cases.
QPP_NEON_INLINE void start_each(const ConvArgs& args, std::int64_t filter,
                                std::int32_t (&starts)[kPixels][kFilters]) {
  const std::int32_t* correction = args.output->correction + filter;
  const int32x4_t low = vld1q_s32(correction);
  const int32x4_t high = vld1q_s32(correction + 4);
  const float32x4_t unit = vdupq_n_f32(kSparseUnit);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    const Float8 wide = to_float32(load(args.sparse + p * args.filters + filter));
    int32x4_t start[2];
    if (args.output->magic_bias_accumulators) {
      start[0] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(low), wide.low, unit));
      start[1] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(high), wide.high, unit));
    } else {
      start[0] = vaddq_s32(low, vcvtnq_s32_f32(vmulq_f32(wide.low, unit)));
      start[1] = vaddq_s32(high, vcvtnq_s32_f32(vmulq_f32(wide.high, unit)));
    }
    vst1q_s32(starts[p], start[0]);
    vst1q_s32(starts[p] + 4, start[1]);
  }
}

/// Stores the sums of a block.
template <int kCount, typename Output>
QPP_NEON_INLINE void store_sums(Output& output, std::int64_t filter,
                                const int32x4_t (&sums)[kCount][2]) {
  if (output.stage().magic_bias_accumulators) {
    output.store_magic_bias(filter, [&sums](int p) {
      return Float8{vreinterpretq_f32_s32(sums[p][0]), vreinterpretq_f32_s32(sums[p][1])};
    });
  } else {
    output.store_block(filter, [&sums](int p) {
      return Float8{vcvtq_f32_s32(sums[p][0]), vcvtq_f32_s32(sums[p][1])};
    });
  }
}

/// All blocks of a tile of eight pixels.
template <typename Dst, bool kResidual, typename Runs>
QPP_NEON_INLINE void conv_8x8_general(const Runs& runs, const ConvArgs& args) {
  const OutputStage& stage = *args.output;
  const auto* weights = static_cast<const std::int8_t*>(args.weights);
  const bool has_half = args.empty_filters >= kFilters / 2;
  BlockOutput<Dst, kResidual> output(args);
  const bool quick_sparse = stage.magic_bias_accumulators && args.pixel_count == kPixels;
  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    const std::int32_t* start = stage.correction + filter;
    int32x4_t sums[kPixels][2];
    if (args.sparse != nullptr && quick_sparse) {
      sum_block<Start::sparse>(runs, args, filter, start, weights, sums);
    } else if (args.sparse != nullptr) {
      std::int32_t starts[kPixels][kFilters] = {};
      start_each(args, filter, starts);
      sum_block<Start::each>(runs, args, filter, starts[0], weights, sums);
    } else if (has_half && filter + kFilters == args.filters) {
      sum_block<Start::half>(runs, args, filter, start, weights, sums);
    } else {
      sum_block<Start::same>(runs, args, filter, start, weights, sums);
    }
    store_sums(output, filter, sums);
  }
  output.finish();
}

/// Adds the products of four channels, which lane kLane holds.
template <int kLane>
QPP_NEON_INLINE void add_quad(int32x4_t (&sums)[2], int8x16_t channels,
                              const std::int8_t*& weights) {
  sums[0] = vdotq_laneq_s32(sums[0], vld1q_s8(weights), channels, kLane);
  sums[1] = vdotq_laneq_s32(sums[1], vld1q_s8(weights + 16), channels, kLane);
  weights += 4 * kFilters;
}

/// Adds the products of the first pixel. `weights` moves on to the next block.
QPP_NEON_INLINE void add_pixel(const PointerRuns<kPixels>& runs, const std::int8_t*& weights,
                               int32x4_t (&sums)[2]) {
  for (std::int64_t run = 0; run < runs.count(); ++run) {
    const auto* src = static_cast<const std::int8_t*>(runs.pixels()[run * kPixels]);
    std::int64_t c = 0;
    for (; c + 16 <= runs.channels(); c += 16) {
      const int8x16_t channels = vld1q_s8(src + c);
      add_quad<0>(sums, channels, weights);
      add_quad<1>(sums, channels, weights);
      add_quad<2>(sums, channels, weights);
      add_quad<3>(sums, channels, weights);
    }
    for (; c < runs.channels(); c += 4) {
      std::int32_t quad = 0;
      std::memcpy(&quad, src + c, sizeof quad);
      add_quad<0>(sums, vreinterpretq_s8_s32(vdupq_n_s32(quad)), weights);
    }
  }
}

// The same for a single pixel, as in a linear layer, instead of a tile that repeats it.
//
// loop budget    16 channels: 9 loads, 8 SDOT in two chains (128 MACs): 4.5 cycles, in which memory
//                brings a sixth of the 128 bytes of weights
template <typename Dst, bool kResidual>
[[gnu::noinline]] void conv_1x8(const ConvArgs& args) {
  const PointerRuns<kPixels> runs(args);
  const auto* weights = static_cast<const std::int8_t*>(args.weights);
  BlockOutput<Dst, kResidual, 1> output(args);
  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    std::int32_t starts[kPixels][kFilters];
    if (args.sparse != nullptr) start_each(args, filter, starts);
    const std::int32_t* start =
        args.sparse != nullptr ? starts[0] : args.output->correction + filter;
    int32x4_t sums[1][2] = {{vld1q_s32(start), vld1q_s32(start + 4)}};
    add_pixel(runs, weights, sums[0]);
    store_sums(output, filter, sums);
  }
  output.finish();
}

}  // namespace
}  // namespace qpp
