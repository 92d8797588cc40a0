// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernels.h"

namespace qpp {

/// A sparse matrix, in compressed rows, times a dense one: the sums of the outliers under a
/// convolution's kernel.
///
///   sums[p][f] = sum over i in begins[p] .. begins[p + 1] of values[i] * weights[columns[i]][f],
///
/// cut to what a half can hold.
struct SpmmArgs {
  const std::uint32_t* begins = nullptr;  // [rows + 1], from 0 on
  const std::uint32_t* columns = nullptr;
  const half* values = nullptr;
  std::int64_t rows = 0;
  std::int64_t filters = 0;       // a multiple of 8
  const half* weights = nullptr;  // [][filters]
  half* sums = nullptr;           // [rows][filters]
};
using SpmmFunction = void (*)(const SpmmArgs& args);

struct SpmmKernel {
  KernelInfo info;
  DType dst;
  DType src;
  DType weights;
  SpmmFunction function;
};

/// No weight is larger, so that no product overflows, and no sum of values up to
/// kLargestHalf / kLargestSpmmWeight.
inline constexpr float kLargestSpmmWeight = 8;
inline constexpr float kLargestHalf = 65504;

}  // namespace qpp
