// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace qpp {

/// Quantization parameters of one value: q = clamp(round_half_even(x / scale) + zero_point, qmin,
/// qmax).
struct QParams {
  float lo = 0;
  float hi = 0;
  float scale = 1;
  float inverse_scale = 1;
  std::int32_t zero_point = 0;
  std::int32_t qmin = -128;
  std::int32_t qmax = 127;
};

/// The parameters that cover [lo, hi] with 2^bits levels (equation A.2 of the QPP paper, CVPR
/// 2021). The range is extended to contain zero, which then has an exact level: a zero-padded
/// border causes no error. The scale is up to 0.1 % larger than necessary, so that its inverse has
/// no more significant bits than a half: products with halves are exact in float, and round to the
/// same level in fp16. Expects finite bounds and 2 <= bits <= 8.
QParams choose_qparams(float lo, float hi, int bits);

}  // namespace qpp
