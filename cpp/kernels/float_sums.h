// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/output_stage.h"

namespace qpp {

// The shorter way of output_stage.h. Accumulators start at the bits of kRoundingMagic: while a sum
// stays within +-2^22, its bits are those of the float kRoundingMagic + sum, and nothing needs to
// be converted. For an int8 destination the bias holds kRoundingMagic as well, so that the fma
// rounds to an integer, once, half to even. That bias must be an integer; what it leaves out is
// made up for by the start of the accumulators, to within half a step of theirs.

/// What a filter's sum of products lies between, and the numbers that a kernel reads for it.
struct FloatSumFilter {
  std::int64_t lowest = 0;  // of sum over products, zero points subtracted
  std::int64_t highest = 0;
  std::int64_t sparse = 0;  // the largest magnitude of a sparse part, which is added to it
  std::int32_t correction = 0;
  float multiplier = 0;
  float bias = 0;
};

inline constexpr auto kMagicBits = std::bit_cast<std::int32_t>(kRoundingMagic);
inline constexpr double kLargestFloatSum = (1 << 22) - 1;

/// Floats that the accumulators' start, which is `correction`, and a sparse part make add up like
/// integers.
inline bool starts_exactly(const FloatSumFilter& filter, double correction) {
  return filter.sparse == 0 ||
         std::abs(correction) + static_cast<double>(filter.sparse) <= kLargestFloatSum;
}

inline constexpr double kLargestFloatLevel = 32000;  // fits 16 bits

/// Fits an int8 residual of the given scale to levels of an int8 destination that lie between
/// -`largest` and `largest`. False: it needs the longer way.
inline bool use_fine_levels(ResidualStage& residual, double largest) {
  residual.shift = kMostResidualShift;
  const auto fits = [&] {
    return std::ldexp(largest, residual.shift) <= kLargestFloatLevel &&
           std::ldexp(static_cast<double>(residual.scale), residual.shift + 7) <= 32767;
  };
  while (!fits()) {
    if (--residual.shift < kLeastResidualShift) return false;
  }
  residual.multiplier = static_cast<std::int16_t>(
      std::nearbyint(std::ldexp(static_cast<double>(residual.scale), residual.shift + 7)));
  return true;
}

/// Changes the numbers of one filter to those of the shorter way, for an int8 or int16 destination
/// with the given zero point and bounds, which hold it, and maybe a residual. False: the filter
/// needs the longer way. `reach` is cut to the levels that are told apart.
inline bool use_float_sums(FloatSumFilter& filter, std::int32_t zero_point, float lo, float hi,
                           Range& reach, const ResidualStage* residual = nullptr) {
  constexpr double kMagic = kRoundingMagic;
  constexpr double kLargestMultiplier = 1.0 / 256;  // the bias is off by at most half of it
  if (filter.lowest == 0 && filter.highest == 0) filter.multiplier = 0;  // a filter of zeros
  // Levels are computed in fractions of a step, and a step of the residual adds `added` of them.
  const int fractions = residual == nullptr ? 1 : 1 << residual->shift;
  const double added = residual == nullptr ? 0 : residual->multiplier / 128.0;
  const float fine_multiplier = filter.multiplier * static_cast<float>(fractions);
  const double multiplier = fine_multiplier;
  const double wanted = (static_cast<double>(filter.bias) + zero_point) * fractions -
                        (residual == nullptr ? 0 : residual->zero_point * added);
  if (!(multiplier >= 0 && multiplier <= kLargestMultiplier * fractions)) return false;
  if (!(std::abs(wanted) <= kLargestFloatLevel)) return false;

  const double exact = wanted - kMagic * multiplier;
  const double bias = std::nearbyint(exact);
  const double start = multiplier > 0 ? std::nearbyint((exact - bias) / multiplier) : 0;
  if (!(std::abs(start) <= kLargestFloatSum / 2)) return false;
  if (!starts_exactly(filter, filter.correction + start)) return false;
  if (std::max(-filter.lowest, filter.highest) > (1 << 29)) return false;

  // Beyond +-2^22 the floats of successive bits lie closer or farther apart, but still in order:
  // those sums are served as well if they are cut to the bounds anyway.
  const auto level = [&](double value) { return value * multiplier + bias; };
  const double lowest = static_cast<double>(filter.lowest - filter.sparse) + start;
  const double highest = static_cast<double>(filter.highest + filter.sparse) + start;
  const double least = (level(kMagic - kLargestFloatSum) + 1 + 128 * added) / fractions;
  const double most = (level(kMagic + kLargestFloatSum) - 1 - 128 * added) / fractions;
  if (lowest < -kLargestFloatSum) {
    if (least > lo) return false;
    reach.lo = std::max(reach.lo, static_cast<float>(std::ceil(least)));
  }
  if (highest > kLargestFloatSum) {
    if (most < hi) return false;
    reach.hi = std::min(reach.hi, static_cast<float>(std::floor(most)));
  }
  const auto value = [](double sum) {
    return std::bit_cast<float>(kMagicBits + static_cast<std::int32_t>(sum));
  };
  if (std::abs(level(value(lowest))) > kLargestFloatLevel) return false;
  if (std::abs(level(value(highest))) > kLargestFloatLevel) return false;

  filter.multiplier = fine_multiplier;
  filter.correction += kMagicBits + static_cast<std::int32_t>(start);
  filter.bias = static_cast<float>(bias + kMagic);
  return true;
}

/// The same for an fp16 destination.
inline bool use_float_sums(FloatSumFilter& filter) {
  const auto largest =
      static_cast<double>(std::max(-filter.lowest, filter.highest) + filter.sparse);
  if (!starts_exactly(filter, filter.correction)) return false;
  if (!(largest <= kLargestFloatSum && filter.multiplier >= 0x1p-100F &&
        filter.multiplier <= 0x1p100F)) {
    return false;
  }
  // Without its last two bits, the multiplier's product with the magic number is exact: a sum and
  // a bias of zero make zero.
  filter.multiplier = std::bit_cast<float>(std::bit_cast<std::uint32_t>(filter.multiplier) & ~3U);
  filter.correction += kMagicBits;
  filter.bias = static_cast<float>(static_cast<double>(filter.bias) -
                                   static_cast<double>(kRoundingMagic) * filter.multiplier);
  return true;
}

}  // namespace qpp
