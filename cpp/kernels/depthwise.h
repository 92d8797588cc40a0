// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernels.h"
#include "kernels/output_stage.h"
#include "kernels/pack.h"

namespace qpp {

/// Successive output pixels of one row of a depthwise convolution.
///
///   x         = p * stride + kx * dilation - left
///   dst[p][c] = output( sum over ky, kx of
///                       (0 <= x < width ? rows[ky][x * channels + c] : padding[c])
///                       * weights[c][ky][kx] )
struct DepthwiseArgs {
  const void* const* rows = nullptr;  // [kernel_height] rows of the image, or of padding
  const void* padding = nullptr;      // a pixel of zero points, or zeros
  std::int64_t width = 0;             // pixels of the rows
  std::int64_t left = 0;              // columns of padding; negative values crop
  std::int64_t kernel_height = 0;     // (kernel_height + 1) / 2 * kernel_width <= 32
  std::int64_t kernel_width = 0;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;      // of columns
  std::int64_t channels = 0;      // a multiple of 8
  std::int64_t pixel_count = 0;   // of the row
  const void* weights = nullptr;  // pack_depthwise_weights()
  void* dst = nullptr;
  const OutputStage* output = nullptr;  // arrays hold `channels` elements; `range` is not used
};
using DepthwiseKernel = WeightedKernel<DepthwiseArgs>;

/// Consecutive rows of int8 weights, the last filled up with zeros.
inline constexpr std::int64_t kDepthwiseQuad = 4;

/// The weights of a depthwise convolution as kernels read them. Channels are padded with zeros to a
/// multiple of 8; qsi8 quantizes each channel with its scale, by default max|w| / 127, f16 holds it
/// in units of half_scale().
///
///   qsi8:     element (c, ky, kx) at [c / 8][ky / 4][kx][c % 8][ky % 4]
///   f16, f32: element (c, ky, kx) at [c / 8][ky][kx][c % 8]
///
/// `weights` are floats [channels][height][width]. `scales`: of qsi8 channels; empty for the
/// default.
PackedWeights pack_depthwise_weights(const float* weights, std::int64_t channels,
                                     std::int64_t height, std::int64_t width, DType dtype,
                                     std::span<const float> scales = {});

}  // namespace qpp
