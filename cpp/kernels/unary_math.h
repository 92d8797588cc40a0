// SPDX-License-Identifier: Apache-2.0
//
// The functions that formulas of unary_activations.inc consist of, of an element or a vector.
//
// T is float or a vector of floats that has the same operators and the basic functions of the first
// part. Every step is one IEEE operation, so all types give the same bits. NaN gives NaN.
#pragma once

#include <cmath>

#include "kernels/output_stage.h"

#define QPP_UNARY_INLINE [[gnu::always_inline]] inline

namespace qpp {

// ---- basic functions

QPP_UNARY_INLINE float absolute(float x) { return std::fabs(x); }
QPP_UNARY_INLINE float square_root(float x) { return std::sqrt(x); }
QPP_UNARY_INLINE float power(float x, float exponent) { return std::pow(x, exponent); }
/// a * b + c, rounded once.
QPP_UNARY_INLINE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
QPP_UNARY_INLINE float where_greater(float x, float y, float if_greater, float if_not) {
  return x > y ? if_greater : if_not;
}
/// 2^n of the integer n in the low bits of kRoundingMagic + n.
QPP_UNARY_INLINE float power_of_two(float shifted) {
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000U);
}

// ---- exponential

template <typename T>
struct Exponential {
  T power;
  T rest;
};

/// exp(x) = power + power * rest, for x from -87 to 88. Others are clamped: beyond these bounds the
/// result is zero or infinite in fp16.
template <typename T>
QPP_UNARY_INLINE Exponential<T> exponential(T x) {
  const T y = clamp_level(x, -87, 88);
  const T shifted = multiply_add(y, kLog2E, kRoundingMagic);
  const T n = shifted - kRoundingMagic;
  const T r = multiply_add(n, -kLn2Low, multiply_add(n, -kLn2High, y));  // |r| <= ln(2)/2
  T p = multiply_add(r, 1.0F / 720.0F, 1.0F / 120.0F);
  p = multiply_add(p, r, 1.0F / 24.0F);
  p = multiply_add(p, r, 1.0F / 6.0F);
  p = multiply_add(p, r, 0.5F);
  return {.power = power_of_two(shifted), .rest = multiply_add(p * r, r, r)};
}

template <typename T>
QPP_UNARY_INLINE T exp_shared(T x) {
  const auto [power, rest] = exponential(x);
  return multiply_add(power, rest, power);
}

/// exp(x) - 1, also near zero within a few units of the last place.
template <typename T>
QPP_UNARY_INLINE T expm1_shared(T x) {
  const auto [power, rest] = exponential(x);
  return multiply_add(power, rest, power - 1.0F);
}

/// log(1 + u) = 2 atanh(u / (2 + u)), for u from 0 to 1.
template <typename T>
QPP_UNARY_INLINE T log1p_shared(T u) {
  const T s = u / (2.0F + u);
  const T t = s * s;  // up to 1/9
  T p = multiply_add(t, 1.0F / 13.0F, 1.0F / 11.0F);
  p = multiply_add(p, t, 1.0F / 9.0F);
  p = multiply_add(p, t, 1.0F / 7.0F);
  p = multiply_add(p, t, 1.0F / 5.0F);
  p = multiply_add(p, t, 1.0F / 3.0F);
  const T twice = s + s;
  return multiply_add(twice * t, p, twice);
}

// ---- activations

template <typename T>
QPP_UNARY_INLINE T sigmoid_shared(T x) {
  return multiply_add(tanh_shared(0.5F * x), 0.5F, 0.5F);
}

template <typename T>
QPP_UNARY_INLINE T hardsigmoid_shared(T x) {
  return clamp_level(multiply_add(x, 1.0F / 6.0F, 0.5F), 0, 1);
}

/// log(1 + exp(x))
template <typename T>
QPP_UNARY_INLINE T softplus_shared(T x) {
  return clamp_level(x, 0, INFINITY) + log1p_shared(exp_shared(-absolute(x)));
}

/// x * tanh(softplus(x)), with tanh(log(1 + e)) = n / (n + 2) and n = e * (e + 2).
template <typename T>
QPP_UNARY_INLINE T mish_shared(T x) {
  constexpr float kLimit = 20;  // the factor is 1 from here on, to float precision
  const T e = exp_shared(clamp_level(x, -INFINITY, kLimit));
  const T n = e * (e + 2.0F);
  return x * (n / (n + 2.0F));
}

/// log(erfc(u)) for u >= 0, as u times a polynomial fitted up to kLimit: within 2e-5 of the
/// relative error of erfc and erf.
template <typename T>
QPP_UNARY_INLINE T log_erfc_shared(T u) {
  constexpr float kLimit = 4.25F;  // erfc is below 2e-9 from here on
  const T v = clamp_level(u, 0, kLimit);
  T p = multiply_add(v, -1.2668006e-05F, 3.1604385e-04F);
  p = multiply_add(p, v, -3.4997785e-03F);
  p = multiply_add(p, v, 2.3158312e-02F);
  p = multiply_add(p, v, -1.0514954e-01F);
  p = multiply_add(p, v, -6.3601953e-01F);
  p = multiply_add(p, v, -1.1284052F);
  return u * p;
}

template <typename T>
QPP_UNARY_INLINE T erf_shared(T x) {
  const T e = expm1_shared(log_erfc_shared(absolute(x)));
  return where_greater(x, 0.0F, -e, e);
}

/// x / 2 * erfc(-x / sqrt(2)), x / 2 * (1 + erf(x / sqrt(2)))
template <typename T>
QPP_UNARY_INLINE T gelu_shared(T x) {
  const T c = exp_shared(log_erfc_shared(absolute(x) * 0.70710678F));
  return 0.5F * x * where_greater(x, 0.0F, 2.0F - c, c);
}

}  // namespace qpp
