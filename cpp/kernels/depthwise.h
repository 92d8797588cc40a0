// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernels.h"
#include "kernels/output_stage.h"
#include "kernels/pack.h"

namespace qpp {

/// Successive output pixels of one row of a depthwise 3x3 convolution.
///
///   dst[p][c] = output( sum over ky, kx of
///                       rows[ky][(p * stride + kx) * channels + c] * weights[c][ky][kx] )
///
/// The rows hold their padding: zero points, or zeros.
struct DepthwiseArgs {
  const void* rows[3] = {};       // pixel 0 of the window of output pixel 0
  std::int64_t stride = 1;        // 1 or 2
  std::int64_t channels = 0;      // a multiple of 8
  std::int64_t pixel_count = 0;   // of the row
  const void* weights = nullptr;  // pack_depthwise_weights()
  void* dst = nullptr;
  const OutputStage* output = nullptr;  // arrays hold `channels` elements; `range` is not used
};
using DepthwiseFunction = void (*)(const DepthwiseArgs& args);

struct DepthwiseKernel {
  KernelInfo info;
  DType dst;
  DType src;
  DType weights;
  DepthwiseFunction function;
};

/// The weights of a depthwise 3x3 convolution as kernels read them. Channels are padded with zeros
/// to a multiple of 8; qsi8 quantizes each channel with scale max|w| / 127.
///
///   qsi8:     element (c, ky, kx) at [c / 8][kx][c % 8][ky], the last extent 4, of which one is 0
///   f16, f32: element (c, ky, kx) at [c / 8][ky * 3 + kx][c % 8]
///
/// `weights` are floats [channels][3][3].
PackedWeights pack_depthwise_weights(const float* weights, std::int64_t channels, DType dtype);

}  // namespace qpp
