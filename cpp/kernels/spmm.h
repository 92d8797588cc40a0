// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/kernels.h"
#include "tensor/outliers.h"

namespace qpp {

/// A row of sources under a convolution's kernel, and the weights that meet it.
struct SpmmRow {
  OutlierRow outliers;
  const half* weights = nullptr;  // [tap][channels][filters]
};

/// A sparse matrix times a dense one: the sums of the outliers under a convolution's kernel for
/// successive pixels of a row of outputs. Residuals are in units of kStepsPerResidual.
///
///   sums[p][f] = sum over rows, taps t and outliers i of column first + p * step + t * tap_step,
///                as far as there is such a column, of residuals[i] * weights[t][channel(i)][f]
///
/// False: some sum, or a part of it, is more than a half holds; `sums` are not to be used then.
struct SpmmArgs {
  const SpmmRow* rows = nullptr;
  std::int64_t row_count = 0;
  std::int64_t width = 0;  // columns of a row
  std::int64_t first = 0;  // column under the first tap of the first pixel; may be negative
  std::int64_t step = 1;   // columns from one pixel to the next
  std::int64_t taps = 1;   // of a row of the kernel
  std::int64_t tap_step = 1;
  std::int64_t channels = 0;  // padded
  std::int64_t filters = 0;   // a multiple of 8
  std::int64_t pixels = 0;
  half* sums = nullptr;  // [pixels][filters]
};
using SpmmKernel = WeightedKernel<SpmmArgs, bool>;

/// No weight is larger, so that no sum of values up to kMaxHalf / kMaxSpmmWeight overflows.
inline constexpr float kMaxSpmmWeight = 127.0F * 256;
inline constexpr float kMaxHalf = 65504;

/// The same sums in float, for any residuals; args.sums is not used.
void sum_outliers(const SpmmArgs& args, float* sums);

}  // namespace qpp
