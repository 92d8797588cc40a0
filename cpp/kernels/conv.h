// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/output_stage.h"

namespace qpp {

/// One tile of a convolution: up to `mr` output pixels of the kernel's row in variants.inc, all
/// filters.
///
///   dst[p, f] = output( sum over tap, c of src[p, tap][c] * weights[f][tap][c] )
///
/// Pixels are NHWC rows of padded channels, so each source pointer has `channels` consecutive
/// elements.
struct ConvArgs {
  // The sources of output pixel p (0 <= p < mr), by family:
  // conv: pixels[tap * mr + p]; a border tap points to a pixel full of zero points; for p >=
  // pixel_count any valid pixel.
  const void* const* pixels = nullptr;
  // conv3x3s1: src + (ky * src_row_stride + (p + kx) * src_pixel_stride), in elements, for tap = ky
  // * 3 + kx, all inside the image for p < pixel_count; such calls have pixel_count == mr.
  const void* src = nullptr;
  std::int64_t src_row_stride = 0;
  std::int64_t src_pixel_stride = 0;

  std::int64_t taps = 0;
  std::int64_t channels = 0;       // per tap, a multiple of the packing's kr; each source pixel is
                                   // readable up to the next multiple of 8
  std::int64_t pixel_count = 0;    // 1 .. mr
  std::int64_t filters = 0;        // a multiple of 8
  std::int64_t empty_filters = 0;  // the last 0 .. 7 of them: their weights are zeros
  const void* weights = nullptr;   // pack.h, with the row's nr and kr; 64-byte aligned
  void* dst = nullptr;  // pixel p, filter f at dst[p * dst_stride + f]; other bytes stay untouched
  std::int64_t dst_stride = 0;          // elements
  const OutputStage* output = nullptr;  // arrays hold round_up(filters, nr) elements
  // From a dense + sparse source: accumulators start at correction[f] and, rounded, kSparseUnit *
  // sparse[p * filters + f]. Null: no sparse part.
  const half* sparse = nullptr;
  // The residual, added as in output->residual: pixel p, filter f at residual[p * dst_stride + f].
  // Null: no residual.
  const void* residual = nullptr;
};

/// The unit of the sums of the sparse part, in accumulators' units: the largest half is far from
/// where accumulators and floats end.
inline constexpr float kSparseUnit = 16;
inline constexpr std::int32_t kMaxSparseSum = 1 << 20;

/// Where an accumulator of int8 products starts.
inline std::int32_t initial_sum(const OutputStage& output, std::int64_t filter, float sparse) {
  const std::int32_t correction = output.correction[filter];
  if (output.magic_bias_accumulators) {
    return std::bit_cast<std::int32_t>(
        std::fma(sparse, kSparseUnit, std::bit_cast<float>(correction)));
  }
  return correction + static_cast<std::int32_t>(std::nearbyint(sparse * kSparseUnit));
}

struct ConvKernel {
  KernelInfo info;
  DType dst;
  DType src;
  DType weights;
  int mr;  // output pixels of a tile
  int nr;  // filters of a packed block
  int kr;  // consecutive channels in a packed block
  void (*function)(const ConvArgs& args);
};

}  // namespace qpp
