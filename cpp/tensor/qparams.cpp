// SPDX-License-Identifier: Apache-2.0
#include "tensor/qparams.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace qpp {
namespace {

/// Towards zero, to the 11 significant bits of a half.
float cut_to_half_precision(float value) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffffe000U);
}

}  // namespace

QParams choose_qparams(float lo, float hi, int bits) {
  QPP_ASSUME(std::isfinite(lo) && std::isfinite(hi) && bits >= 2 && bits <= 8);
  // The smallest step keeps scale products of two layers far from float underflow.
  constexpr float kMaxInverse = 0x1p40F;
  QParams result;
  result.lo = std::min(lo, 0.0F);
  result.hi = std::max(hi, 0.0F);
  result.qmin = -(1 << (bits - 1));
  result.qmax = (1 << (bits - 1)) - 1;
  const auto levels = static_cast<float>((1 << bits) - 1);
  result.inverse_scale =
      cut_to_half_precision(std::min(levels / (result.hi - result.lo), kMaxInverse));
  result.scale = 1.0F / result.inverse_scale;
  const float zero = static_cast<float>(result.qmin) - result.lo * result.inverse_scale;
  result.zero_point =
      std::clamp(static_cast<std::int32_t>(std::nearbyint(zero)), result.qmin, result.qmax);
  return result;
}

}  // namespace qpp
