// SPDX-License-Identifier: Apache-2.0
#include "tensor/qparams.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace qpp {

QParams choose_qparams(float lo, float hi, int bits) {
  QPP_ASSUME(std::isfinite(lo) && std::isfinite(hi) && bits >= 2 && bits <= 8);
  // The smallest step keeps scale products of two layers far from float underflow.
  constexpr float kSmallestScale = 0x1p-40F;
  QParams result;
  result.lo = std::min(lo, 0.0F);
  result.hi = std::max(hi, 0.0F);
  result.qmin = -(1 << (bits - 1));
  result.qmax = (1 << (bits - 1)) - 1;
  const auto levels = static_cast<float>((1 << bits) - 1);
  result.scale = std::max((result.hi - result.lo) / levels, kSmallestScale);
  result.inverse_scale = 1.0F / result.scale;
  const float zero = static_cast<float>(result.qmin) - result.lo / result.scale;
  result.zero_point =
      std::clamp(static_cast<std::int32_t>(std::nearbyint(zero)), result.qmin, result.qmax);
  return result;
}

}  // namespace qpp
