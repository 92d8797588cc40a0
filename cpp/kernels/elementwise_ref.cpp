// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>

#include "kernels/variants.h"

namespace qpp {
namespace {

/// The nearest integer within [-limit, limit].
int nearest(double value, int limit) {
  return static_cast<int>(
      std::clamp(std::nearbyint(value), -static_cast<double>(limit), static_cast<double>(limit)));
}

std::int8_t level_of(float value, const QParams& row) {
  const float lo = static_cast<float>(row.qmin - row.zero_point);
  const float hi = static_cast<float>(row.qmax - row.zero_point);
  return round_to_int8(clamp_level(value * row.inverse_scale, lo, hi), row.zero_point);
}

/// a - zero point, b - zero point.
template <typename Combine>
void combine_int8(const BinaryArgs& args, const Combine& combine) {
  const auto* a = static_cast<const std::int8_t*>(args.a);
  const auto* b = static_cast<const std::int8_t*>(args.b);
  for (std::int64_t i = 0; i < args.count; ++i)
    combine(i, a[i] - args.a_zero_point, b[i] - args.b_zero_point);
}

}  // namespace

AddLevels make_add_levels(const QParams& a, const QParams& b, const QParams& dst, float sign,
                          float lo, float hi) {
  const double a_ratio = double{a.scale} / dst.scale;
  const double b_ratio = double{sign} * b.scale / dst.scale;
  // Of both inputs and their zero points; the largest sum has to fit 16 bits, its low part too.
  const double largest_sum = 256 * (std::abs(a_ratio) + std::abs(b_ratio)) + 128;
  constexpr double kMax = 32767 - 400;  // for the rounding of the constants
  AddLevels levels;
  levels.shift = kMaxAddShift;
  while (levels.shift > 1 && largest_sum * (1 << levels.shift) > kMax) --levels.shift;
  const double steps = 1 << levels.shift;
  // An output this much finer than its inputs holds little but its two ends; they stay the ends.
  const double shrink = std::min(1.0, kMax / (largest_sum * steps));
  const int a_multiplier = nearest(a_ratio * shrink * steps * 128, 127 * 128);
  const int b_multiplier = nearest(b_ratio * shrink * steps * 128, 127 * 128);
  levels.a_high = static_cast<std::int8_t>((a_multiplier + 64) >> 7);
  levels.b_high = static_cast<std::int8_t>((b_multiplier + 64) >> 7);
  levels.a_low = static_cast<std::int8_t>(a_multiplier - 128 * levels.a_high);
  levels.b_low = static_cast<std::int8_t>(b_multiplier - 128 * levels.b_high);
  const double zeros = a.zero_point * static_cast<double>(a_multiplier) +
                       b.zero_point * static_cast<double>(b_multiplier);
  levels.constant =
      static_cast<std::int16_t>(nearest(dst.zero_point * steps - zeros / 128 + 0.5, 32767));
  levels.lo = level_of(lo, dst);
  levels.hi = level_of(hi, dst);
  return levels;
}

void add_f16_f16_ref(const BinaryArgs& args) {
  const auto* a = static_cast<const half*>(args.a);
  const auto* b = static_cast<const half*>(args.b);
  auto* dst = static_cast<half*>(args.dst);
  for (std::int64_t i = 0; i < args.count; ++i) {
    // Rounding to float first changes nothing: float has more than twice the digits of half.
    const float sum = to_float(a[i]) + to_float(b[i]) * args.b_scale;
    dst[i] = to_half(clamp_level(sum, args.lo, args.hi));
  }
}

void add_f16_qai8_ref(const BinaryArgs& args) {
  auto* dst = static_cast<half*>(args.dst);
  combine_int8(args, [&](std::int64_t i, int a, int b) {
    const float addend = static_cast<float>(b) * args.b_scale;
    const float sum = std::fma(static_cast<float>(a), args.a_scale, addend);
    dst[i] = to_half(clamp_level(sum, args.lo, args.hi));
  });
}

void add_qai8_qai8_ref(const BinaryArgs& args) {
  const auto* a = static_cast<const std::int8_t*>(args.a);
  const auto* b = static_cast<const std::int8_t*>(args.b);
  auto* dst = static_cast<std::int8_t*>(args.dst);
  for (std::int64_t i = 0; i < args.count; ++i) dst[i] = add_levels(a[i], b[i], args.levels);
}

void requantize_qai8_qai8_ref(const RequantizeArgs& args) {
  for (std::int64_t i = 0; i < args.count; ++i)
    args.dst[i] = add_levels(args.src[i], 0, args.levels);
}

void mul_f16_f16_ref(const BinaryArgs& args) {
  const auto* a = static_cast<const half*>(args.a);
  const auto* b = static_cast<const half*>(args.b);
  auto* dst = static_cast<half*>(args.dst);
  for (std::int64_t i = 0; i < args.count; ++i)
    dst[i] = to_half(clamp_level(to_float(a[i]) * to_float(b[i]), args.lo, args.hi));
}

void mul_f16_qai8_ref(const BinaryArgs& args) {
  auto* dst = static_cast<half*>(args.dst);
  combine_int8(args, [&](std::int64_t i, int a, int b) {
    const float product = static_cast<float>(a * b) * args.a_scale;
    dst[i] = to_half(clamp_level(product, args.lo, args.hi));
  });
}

void mul_qai8_qai8_ref(const BinaryArgs& args) {
  auto* dst = static_cast<std::int8_t*>(args.dst);
  combine_int8(args, [&](std::int64_t i, int a, int b) {
    const float product = static_cast<float>(a * b) * args.a_scale;
    dst[i] = round_to_int8(clamp_level(product, args.lo, args.hi), args.zero_point);
  });
}

}  // namespace qpp
