// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"

namespace qpp {

/// A place between two source pixels, or rows: first * (1 - weight) + second * weight.
struct ResizeTap {
  std::int32_t first = 0;
  std::int32_t second = 0;
  half weight;
};

/// Number of source pixels around an int8 output pixel.
inline constexpr std::int64_t kCorners = 4;

/// Output rows between the same two source rows.
///
///   f16:   across(row, x)[c] = between row[columns[x].first][c] and row[columns[x].second][c]
///          dst[r][x][c]      = between across(top, x)[c] and across(bottom, x)[c] by rows[r]
///          between(a, b, w)  = half(fma(half(b - a), w, a))
///   qai8:  corner(x, 0), corner(x, 1) = pixels columns[x].first, columns[x].second of top
///          corner(x, 2), corner(x, 3) = the same of bottom
///          dst[r][x][c]      = (sum over k of corner(x, k)[c] * corners[r][x][k]) + 128 >> 8
struct ResizeArgs {
  const void* top = nullptr;  // pixel 0 of the source rows
  const void* bottom = nullptr;
  const ResizeTap* columns = nullptr;  // [pixel_count]
  std::int64_t pixel_count = 0;
  const ResizeTap* rows = nullptr;  // of fp16: [row_count], of which the weights count
  /// Of int8: [row_count][pixel_count][kCorners] weights, which add up to 256.
  const std::uint8_t* const* corners = nullptr;
  std::int64_t row_count = 0;  // >= 1
  std::int64_t channels = 0;   // a multiple of 8
  void* dst = nullptr;         // rows follow each other: dst[(r * pixel_count + x) * channels + c]
};
using ResizeKernel = Kernel<ResizeArgs>;

}  // namespace qpp
