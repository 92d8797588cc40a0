// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"

namespace qpp {

/// A place between two source pixels, or rows: first * (1 - weight) + second * weight.
struct ResizeTap {
  std::int32_t first = 0;
  std::int32_t second = 0;
  half weight;             // for fp16
  std::int16_t fixed = 0;  // for int8: the weight in units of 2^-15, 0 .. 32767
};

/// Output rows that lie between the same two source rows.
///
///   across(row, x)[c] = between row[columns[x].first][c] and row[columns[x].second][c]
///   dst[r][x][c]      = between across(top, x)[c] and across(bottom, x)[c] by rows[r]
///
///   f16:   between(a, b, w) = half(fma(half(b - a), w, a))
///   qai8:  across is a * (64 - w) + b * w, with w = (fixed + 256) >> 9, exact;
///          dst = (t + ((b - t) * 2 * fixed + 2^15 >> 16) + 32) >> 6
struct ResizeArgs {
  const void* top = nullptr;  // pixel 0 of the source rows
  const void* bottom = nullptr;
  const ResizeTap* columns = nullptr;  // [pixel_count]
  std::int64_t pixel_count = 0;
  const ResizeTap* rows = nullptr;  // [row_count], of which the weights count
  std::int64_t row_count = 0;       // >= 1
  std::int64_t channels = 0;        // a multiple of 8
  void* dst = nullptr;  // rows follow each other: dst[(r * pixel_count + x) * channels + c]
};
using ResizeFunction = void (*)(const ResizeArgs& args);

struct ResizeKernel {
  KernelInfo info;
  DType dst;
  DType src;
  ResizeFunction function;
};

}  // namespace qpp
