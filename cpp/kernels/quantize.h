// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/output_stage.h"

namespace qpp {

/// dst[i] = round_half_even(clamp(src[i] * inverse_scale, lo, hi)) + zero_point; NaN gives hi +
/// zero_point. The product is rounded to float, which is exact where inverse_scale has no more
/// significant bits than a half, as choose_qparams() makes it: kernels may be faster then.
struct QuantizeArgs {
  const half* src = nullptr;
  std::int8_t* dst = nullptr;
  std::int64_t count = 0;  // a multiple of 8
  float inverse_scale = 1;
  float lo = 0;  // qmin - zero_point
  float hi = 0;  // qmax - zero_point
  std::int32_t zero_point = 0;
};
using QuantizeKernel = Kernel<QuantizeArgs>;

/// dst[i] = half((src[i] - zero_point) * scale).
struct DequantizeArgs {
  const std::int8_t* src = nullptr;
  half* dst = nullptr;
  std::int64_t count = 0;  // a multiple of 8
  float scale = 1;
  std::int32_t zero_point = 0;
};
using DequantizeKernel = Kernel<DequantizeArgs>;

}  // namespace qpp
