// SPDX-License-Identifier: Apache-2.0
#include "kernels/magic_bias.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace qpp {
namespace {

// Every run does this for every filter, so that loops are without branches and go by lanes, which
// compilers put into vectors. Arrays hold whole blocks.
constexpr std::size_t kLanes = 8;
template <typename T>
using Lanes = std::array<T, kLanes>;

template <typename T>
Lanes<T> all_lanes(T value) {
  Lanes<T> lanes;
  lanes.fill(value);
  return lanes;
}

constexpr float kMaxSum = (1 << 22) - 1;
constexpr float kMaxLevel = 32000;  // fits 16 bits

/// Rounds magnitudes up to 2^22 half to even.
float round_small(float value) { return (value + kRoundingMagic) - kRoundingMagic; }

/// A multiplier whose product with kRoundingMagic is exact: without the last two bits.
float truncate(float multiplier) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(multiplier) & ~3U);
}

/// The largest magnitude of a filter's sum of products, zero points of the sources subtracted.
std::int32_t largest_sum(const RunSums& sums, std::size_t f) {
  // Twice source less zero point: an odd number within +-255, less another.
  const std::int32_t lean = (2 * sums.zero_point + 1) * sums.weights.sums[f];
  return (255 * sums.weights.magnitudes[f] + std::abs(lean)) >> 1;
}

/// Up to this, accumulators start so that a sparse part adds up like integers.
float exact_start(const RunSums& sums) {
  return sums.sparse == 0 ? INFINITY : kMaxSum - static_cast<float>(sums.sparse);
}

/// For an int8 or int16 destination, whose bounds hold the zero point. An int8 residual is added in
/// the sums' units, to within half of one for each of its steps.
bool change_to_integers(const RunSums& sums, const Range& needed, bool residual,
                        const OutputArrays& arrays, OutputStage& stage) {
  // The bias is off by at most half a unit; 256 steps of a residual are by at most a quarter step.
  const float largest_multiplier = residual ? 1.0F / 512 : 1.0F / 256;
  const float residual_scale = residual ? stage.residual.scale : 0;
  const std::int32_t residual_zero = stage.residual.zero_point;
  const auto zero_point = static_cast<float>(stage.zero_point);
  const float largest_start = exact_start(sums);

  auto unfit = all_lanes(std::uint32_t{0});
  auto least = all_lanes(-INFINITY);  // levels that differ from all beyond
  auto most = all_lanes(INFINITY);
  for (std::size_t first = 0; first < sums.weights.scales.size(); first += kLanes) {
    Lanes<float> multipliers;
    Lanes<float> biases;
    Lanes<std::int32_t> starts;
    Lanes<std::int16_t> factors;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const std::size_t f = first + lane;
      const float multiplier = truncate(arrays.multiplier[f]);
      const float wanted = arrays.bias[f] + zero_point;
      // The result of the fma exceeds the level by kRoundingMagic * multiplier. The start of the
      // accumulators compensates the fractions of both; the bias compensates whole steps.
      const float excess = multiplier * kRoundingMagic;
      const float whole = round_small(wanted);
      const float whole_excess = round_small(excess);
      const float rest = (wanted - whole) - (excess - whole_excess);
      const float carry = round_small(rest);
      const float bias = (whole - whole_excess) + carry;
      const float units_per_step = 1 / multiplier;
      const float rest_of_sum = (rest - carry) * units_per_step;
      const bool starts_near = std::abs(rest_of_sum) <= kMaxSum / 2;
      const float start = starts_near ? rest_of_sum : 0;
      const float exact_factor = residual_scale * units_per_step;
      const bool has_factor = exact_factor <= INT16_MAX - 1;
      const auto factor = static_cast<std::int32_t>(has_factor ? round_small(exact_factor) : 0);
      const std::int32_t correction = arrays.correction[f] - residual_zero * factor;
      const float first_sum = static_cast<float>(correction) + start;

      // Beyond +-2^22 the floats of successive bits are closer or farther apart, but still in
      // order: such sums are exact enough if they are clipped to the bounds anyway.
      const auto farthest_bits = std::bit_cast<std::int32_t>(std::abs(start) + kRoundingMagic) +
                                 largest_sum(sums, f) + sums.sparse + 255 * factor;
      const float farthest = std::bit_cast<float>(farthest_bits) - kRoundingMagic;
      const bool clipped = farthest > kMaxSum;
      const float middle = bias + excess;
      const float distinct = kMaxSum * multiplier - 1;
      least[lane] = std::max(least[lane], clipped ? middle - distinct : -INFINITY);
      most[lane] = std::min(most[lane], clipped ? middle + distinct : INFINITY);

      const bool fits = starts_near && has_factor && multiplier <= largest_multiplier &&
                        std::abs(first_sum) <= largest_start &&
                        std::abs(middle) + farthest * multiplier <= kMaxLevel;
      unfit[lane] |= fits ? 0U : 1U;
      multipliers[lane] = multiplier;
      biases[lane] = bias + kRoundingMagic;
      starts[lane] = correction + std::bit_cast<std::int32_t>(start + kRoundingMagic);
      factors[lane] = static_cast<std::int16_t>(factor);
    }
    std::copy(multipliers.begin(), multipliers.end(), arrays.multiplier + first);
    std::copy(biases.begin(), biases.end(), arrays.bias + first);
    std::copy(starts.begin(), starts.end(), arrays.correction + first);
    if (residual) std::copy(factors.begin(), factors.end(), arrays.residual_factor + first);
  }
  const float distinct_lo = std::ceil(*std::max_element(least.begin(), least.end()));
  const float distinct_hi = std::floor(*std::min_element(most.begin(), most.end()));
  if (distinct_lo > needed.lo || distinct_hi < needed.hi) return false;
  if (*std::max_element(unfit.begin(), unfit.end()) != 0) return false;
  stage.lo = std::max(stage.lo, distinct_lo);
  stage.hi = std::min(stage.hi, distinct_hi);
  stage.residual.factor = arrays.residual_factor;
  return true;
}

/// For an fp16 destination.
bool change_to_reals(const RunSums& sums, const OutputArrays& arrays) {
  const float largest_start = exact_start(sums);
  const std::int32_t max_sum = static_cast<std::int32_t>(kMaxSum) - sums.sparse;
  std::uint32_t unfit = 0;
  for (std::size_t f = 0; f < sums.weights.scales.size(); ++f) {
    const float multiplier = truncate(arrays.multiplier[f]);
    const bool fits = std::abs(static_cast<float>(arrays.correction[f])) <= largest_start &&
                      largest_sum(sums, f) <= max_sum && multiplier >= 0x1p-100F &&
                      multiplier <= 0x1p100F;
    unfit |= fits ? 0U : 1U;
    // The product with the magic number is exact: a sum and a bias of zero make zero.
    arrays.multiplier[f] = multiplier;
    arrays.bias[f] -= kRoundingMagic * multiplier;
    arrays.correction[f] += std::bit_cast<std::int32_t>(kRoundingMagic);
  }
  return unfit == 0;
}

}  // namespace

bool try_fast_requantization(const RunSums& sums, DType dst, bool residual,
                             const OutputArrays& arrays, OutputStage& stage) {
  OutputStage fast = stage;
  fast.magic_bias_accumulators = true;
  if (dst == DType::f16) {
    if (!change_to_reals(sums, arrays)) return false;
    stage = fast;
    return true;
  }
  if (residual && (dst != DType::qai8 || stage.residual.dtype != DType::qai8)) return false;
  fast.lo = std::nearbyint(stage.lo) + static_cast<float>(stage.zero_point);
  fast.hi = std::nearbyint(stage.hi) + static_cast<float>(stage.zero_point);
  Range needed{.lo = fast.lo, .hi = fast.hi};
  if (dst == DType::qai16) {  // may be narrower than without the fast path, but not much
    constexpr float kLeastResidual = 256;
    needed.lo = std::max(needed.lo, INT8_MIN - kLeastResidual);
    needed.hi = std::min(needed.hi, INT8_MAX + kLeastResidual);
  }
  if (!change_to_integers(sums, needed, residual, arrays, fast)) return false;
  stage = fast;
  return true;
}

}  // namespace qpp
