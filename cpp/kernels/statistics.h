// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/output_stage.h"

namespace qpp {

/// The real elements of a tensor: `channels` of every `stride` successive ones, `pixels` times.
struct StatisticsSource {
  const half* data = nullptr;
  std::int64_t pixels = 0;    // >= 1
  std::int64_t channels = 0;  // >= 1
  std::int64_t stride =
      0;  // a multiple of 8, >= channels; the elements between are readable but do not count
};

/// range = the smallest and the largest element; both NaN when an element is NaN.
struct MinMaxArgs {
  StatisticsSource src;
  Range* range = nullptr;
};
using MinMaxKernel = Kernel<MinMaxArgs>;

/// mean = sum / count, the same bits on every machine, because each step and their order are fixed.
/// The vectors of 8 channels (a pixel has ceil(channels / 8), in memory order; channels beyond
/// count as zero) are averaged in pairs in fp16, half(half(a/2) + b/2), which cannot overflow; a
/// last one without a partner is averaged with zeros. Lane l of the averages is summed in float
/// over blocks of kMeanBlock, each block's lanes are added to doubles, and the eight doubles are
/// added from lane 0 to lane 7. The rounding to fp16 makes an error of at most 2^-11 of the mean
/// magnitude, and one that averages out over many elements.
inline constexpr std::int64_t kMeanBlock = 64;
struct MeanArgs {
  StatisticsSource src;
  float* mean = nullptr;
};
using MeanKernel = Kernel<MeanArgs>;

/// deviation = sqrt(sum((x - mean)^2) / count), the same bits on every machine: both sums are over
/// doubles. Lane l of the vectors of 8 channels is summed in memory order, then the lanes are added
/// from 0 to 7; the mean is the sum of all elements, summed alike, over their count.
struct DeviationArgs {
  StatisticsSource src;
  float* deviation = nullptr;
};
using DeviationKernel = Kernel<DeviationArgs>;

/// values[i] = the element of rank ranks[i] (0 is the smallest), exactly. Elements are finite.
struct QuantileArgs {
  StatisticsSource src;
  const std::int64_t* ranks = nullptr;  // [rank_count], each in 0 .. pixels * channels - 1
  std::int64_t rank_count = 0;          // 1 .. kMaxRanks
  float* values = nullptr;              // [rank_count]
  void* scratch = nullptr;  // quantile_scratch_bytes(pixels * channels), 64-byte aligned
};
inline constexpr std::int64_t kMaxRanks = 8;

/// Room for a histogram over all 2^16 half values, or for a copy of the elements.
constexpr std::size_t quantile_scratch_bytes(std::int64_t elements) {
  const std::size_t copy = (static_cast<std::size_t>(elements) + 64) * sizeof(half);
  constexpr std::size_t kHistogram = std::size_t{65536} * sizeof(std::uint32_t);
  return copy > kHistogram ? copy : kHistogram;
}
using QuantileKernel = Kernel<QuantileArgs>;

}  // namespace qpp
