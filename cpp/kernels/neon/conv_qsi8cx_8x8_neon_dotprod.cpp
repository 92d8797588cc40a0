// SPDX-License-Identifier: Apache-2.0
#include <cstddef>

#include "kernels/neon/conv_qsi8cx_8x8_general.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// How the fast path in the .S file stores blocks; it knows the offsets.
struct SdotOutput {
  const float* multiplier;
  const float* bias;
  void* dst;
  std::int64_t dst_stride;   // bytes
  const void* addend;        // sparse sums or an int8 residual
  std::int64_t sparse_step;  // bytes
  const std::int16_t* residual_factor;
};
static_assert(offsetof(SdotOutput, dst) == 16 && offsetof(SdotOutput, addend) == 32 &&
              offsetof(SdotOutput, residual_factor) == 48);

/// Sums and stores `blocks` >= 1 consecutive blocks of eight pixels times eight filters.
using SdotFunction = void(const std::int8_t* weights, const void* const* pixels, std::int64_t runs,
                          std::int64_t channels, const std::int32_t* start,
                          const SdotOutput* output, std::int64_t blocks);
extern "C" {
SdotFunction qpp_sdot_blocks_qai8;
SdotFunction qpp_sdot_blocks_qai8_sparse;
SdotFunction qpp_sdot_blocks_qai8_residual;
SdotFunction qpp_sdot_blocks_qai8_half;
SdotFunction qpp_sdot_blocks_qai8_half_residual;
SdotFunction qpp_sdot_blocks_qai16;
SdotFunction qpp_sdot_blocks_qai16_sparse;
SdotFunction qpp_sdot_blocks_qai16_half;
}

/// The functions of a destination type.
struct SdotFunctions {
  SdotFunction* plain;
  SdotFunction* sparse;
  SdotFunction* residual;
  SdotFunction* half;  // filters 4 .. 7 are empty
  SdotFunction* half_residual;
};
template <typename Dst>
constexpr SdotFunctions kSdot{};
template <>
constexpr SdotFunctions kSdot<std::int8_t> = {
    qpp_sdot_blocks_qai8, qpp_sdot_blocks_qai8_sparse, qpp_sdot_blocks_qai8_residual,
    qpp_sdot_blocks_qai8_half, qpp_sdot_blocks_qai8_half_residual};
template <>
constexpr SdotFunctions kSdot<std::int16_t> = {qpp_sdot_blocks_qai16, qpp_sdot_blocks_qai16_sparse,
                                               nullptr, qpp_sdot_blocks_qai16_half, nullptr};

template <typename Dst, bool kResidual>
constexpr bool kHasFastPath =
    std::is_same_v<Dst, std::int8_t> || (std::is_same_v<Dst, std::int16_t> && !kResidual);

/// Whether the fast path can compute a tile: a whole one, with magic-bias accumulators, bounds that
/// clip no level, and at most one addend.
template <typename Dst, bool kResidual>
QPP_NEON_INLINE bool is_fast(const ConvArgs& args) {
  const OutputStage& stage = *args.output;
  const bool all_levels = sizeof(Dst) > 1 || (stage.lo <= INT8_MIN && stage.hi >= INT8_MAX);
  const bool one_addend = !kResidual || args.sparse == nullptr;
  return stage.magic_bias_accumulators && all_levels && args.pixel_count == kPixels && one_addend;
}

/// Calls a function for `blocks` blocks from a filter on.
template <typename Dst, bool kResidual, typename Runs>
QPP_NEON_INLINE void run_blocks(SdotFunction* function, const Runs& runs, const ConvArgs& args,
                                std::int64_t filter, std::int64_t blocks) {
  const OutputStage& stage = *args.output;
  const void* addend = args.sparse;
  if constexpr (kResidual) addend = static_cast<const std::int8_t*>(args.residual) + filter;
  const SdotOutput output{.multiplier = stage.multiplier + filter,
                          .bias = stage.bias + filter,
                          .dst = static_cast<Dst*>(args.dst) + filter,
                          .dst_stride = args.dst_stride * static_cast<std::int64_t>(sizeof(Dst)),
                          .addend = addend,
                          .sparse_step = args.filters * static_cast<std::int64_t>(sizeof(half)),
                          .residual_factor = kResidual ? stage.residual.factor + filter : nullptr};
  const std::int8_t* weights =
      static_cast<const std::int8_t*>(args.weights) + filter * runs.count() * runs.channels();
  function(weights, runs.pixels(), runs.count(), runs.channels(), stage.correction + filter,
           &output, blocks);
}

template <typename Dst, bool kResidual, typename Runs>
QPP_NEON_INLINE void conv_8x8_fast(const Runs& runs, const ConvArgs& args) {
  constexpr const SdotFunctions& kFunctions = kSdot<Dst>;
  const std::int64_t blocks = args.filters / kFilters;
  if (!kResidual && args.sparse != nullptr) {
    return run_blocks<Dst, false>(kFunctions.sparse, runs, args, 0, blocks);
  }
  const std::int64_t halves = args.empty_filters >= kFilters / 2 ? 1 : 0;
  if (blocks > halves) {
    run_blocks<Dst, kResidual>(kResidual ? kFunctions.residual : kFunctions.plain, runs, args, 0,
                               blocks - halves);
  }
  if (halves > 0) {
    run_blocks<Dst, kResidual>(kResidual ? kFunctions.half_residual : kFunctions.half, runs, args,
                               args.filters - kFilters, 1);
  }
}

// dst[p, f] = output(correction[f] + sum over tap, c of src[p, tap][c] * weights[f][tap][c])
//
// src            int8 NHWC; a pixel of `channels` elements per tap, found as in conv_source.h
// weights        int8, (f, tap, c) at [f / 8][tap][c / 4][f % 8][c % 4]
// dst            int8, int16 or fp16, (p, f) at p * dst_stride + f
// preconditions  channels % 4 == 0, filters % 8 == 0, output->correction is not null; no over-read
// loop           pseudocode and instructions in conv_qsi8cx_8x8_neon_dotprod.S
// registers      the map is there; four empty filters get no SDOT
// loop budget    16 channels: 16 loads, 64 SDOT (1024 MACs), bound by both vector pipes: 32 cycles
//                on A76. Output of a block as int8, the fast path: 40 slots of the vector pipes
//                (16 FMLA, 8 UZP1, 8 SQXTN, which V1 alone takes, 8 stores): 20 cycles, and with
//                the next block's start 42 loads: 21 cycles. Bounds other than those of a byte
//                take 4 cycles more, an int8 residual 15 (8 loads, 8 SSHLL, 16 SMLAL on V0 alone)
// choices        assembly, because GCC 12 adds two to four register moves to 64 SDOTs and loads the
//                next block's start too late. Modelled A76: 64 products take 152 cycles a block, 84
//                % of peak, 576 take 1190, 97 %
template <typename Dst, template <int> typename Runs, bool kResidual>
QPP_NEON_INLINE void conv_8x8(const ConvArgs& args) {
  const Runs<kPixels> runs(args);
  if constexpr (kHasFastPath<Dst, kResidual>) {
    if (is_fast<Dst, kResidual>(args)) return conv_8x8_fast<Dst, kResidual>(runs, args);
  }
  conv_8x8_general<Dst, kResidual>(runs, args);
}

/// Not inlined: the plain convolution would get other registers.
template <typename Dst, template <int> typename Runs>
[[gnu::noinline]] void conv_8x8_residual(const ConvArgs& args) {
  conv_8x8<Dst, Runs, true>(args);
}

template <typename Dst, template <int> typename Runs>
QPP_NEON_INLINE void conv_8x8(const ConvArgs& args) {
  if (args.residual != nullptr) return conv_8x8_residual<Dst, Runs>(args);
  conv_8x8<Dst, Runs, false>(args);
}

/// Family conv.
template <typename Dst>
QPP_NEON_INLINE void conv(const ConvArgs& args) {
  if (args.pixel_count > 1) return conv_8x8<Dst, PointerRuns>(args);
  if (args.residual != nullptr) return conv_1x8<Dst, true>(args);
  conv_1x8<Dst, false>(args);
}

}  // namespace

void conv_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<std::int8_t>(args); }
void conv_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<half>(args); }
void conv_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<std::int16_t>(args); }
void conv3x3s1_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int16_t, Interior3x3Runs>(args);
}
void conv3x3s1_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int8_t, Interior3x3Runs>(args);
}
void conv3x3s1_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<half, Interior3x3Runs>(args);
}

}  // namespace qpp
