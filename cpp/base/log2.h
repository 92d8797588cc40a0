// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace qpp {

/// log2(x) of a positive number to float precision. Each step is one IEEE operation on doubles, so
/// that all machines return the same bits, which the functions of C libraries do not.
inline float log2_shared(float x) {
  int exponent = 0;
  double mantissa = std::frexp(static_cast<double>(x), &exponent);  // 0.5 <= mantissa < 1
  if (mantissa < 0.70710678118654752) {
    mantissa *= 2;
    --exponent;
  }
  // ln(m) = 2 * atanh(s) = 2 * (s + s^3 / 3 + s^5 / 5 + ...), |s| < 0.172
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;
  constexpr int kLastTerm = 21;
  double sum = 1.0 / kLastTerm;
  for (int term = kLastTerm - 2; term >= 1; term -= 2) sum = sum * square + 1.0 / term;
  constexpr double kLog2OfE = 1.4426950408889634;
  return static_cast<float>(exponent + 2 * s * sum * kLog2OfE);
}

/// 2^x to float precision, infinity beyond it; the same bits on all machines.
inline float exp2_shared(float x) {
  constexpr float kLimit = 200;  // beyond all exponents of float
  if (x >= kLimit) return INFINITY;
  if (x <= -kLimit) return 0;
  const double whole = std::nearbyint(static_cast<double>(x));
  constexpr double kLn2 = 0.69314718055994531;
  const double r = (static_cast<double>(x) - whole) * kLn2;
  // exp(r) = 1 + r * (1 + r / 2 * (1 + r / 3 * (...))), |r| <= ln(2) / 2
  constexpr int kTerms = 14;
  double power = 1;
  for (int term = kTerms; term >= 1; --term) power = 1 + power * r / term;
  return static_cast<float>(std::ldexp(power, static_cast<int>(whole)));
}

}  // namespace qpp
