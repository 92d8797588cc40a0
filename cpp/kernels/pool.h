// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/output_stage.h"

namespace qpp {

/// Successive output pixels of one row, whose windows are inside the image:
///
///   window(p, c) = all of rows[r][(p * stride + k) * channels + c], r < row_count, k < width
///   max pool:              dst[p * channels + c] = the largest of window(p, c)
///   avg pool, f16 source:  sum = the sum of window(p, c) in float, from the left column to the
///                          right, each from the top to the bottom
///   avg pool, qai8 source: sum = the sum of window(p, c) + correction, an exact integer
///     f16:                   dst = half(sum * multiplier)
///     qai8:                  dst = round_half_even(clamp(sum * multiplier, lo, hi)) + zero_point
struct PoolArgs {
  const void* const* rows = nullptr;  // sources of output pixel 0
  std::int64_t row_count = 0;         // >= 1
  std::int64_t width = 0;             // >= 1; row_count * width < 2^23
  std::int64_t stride = 1;            // pixels from window to window
  std::int64_t channels = 0;          // a multiple of 8
  std::int64_t pixel_count = 0;
  void* dst = nullptr;
  std::int32_t correction = 0;  // -zero point times the size of the window
  float multiplier = 1;
  float lo = 0;
  float hi = 0;
  std::int32_t zero_point = 0;
};
using PoolKernel = Kernel<PoolArgs>;

}  // namespace qpp
