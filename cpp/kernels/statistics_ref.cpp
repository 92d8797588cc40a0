// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/variants.h"

namespace qpp {
namespace {

template <typename Visit>
void for_each_element(const StatisticsSource& src, const Visit& visit) {
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    for (std::int64_t c = 0; c < src.channels; ++c) visit(src.data[p * src.stride + c]);
  }
}

/// Halves in the order of these keys are in the order of their values; -0 comes before +0.
std::uint16_t order_key(half value) {
  return static_cast<std::uint16_t>((value.bits & 0x8000U) != 0 ? ~value.bits
                                                                : value.bits | 0x8000U);
}

half from_order_key(std::uint32_t key) {
  return half{static_cast<std::uint16_t>((key & 0x8000U) != 0 ? key & 0x7fffU : ~key)};
}

/// The sum of term(x) over all elements x, in the order that statistics.h fixes.
template <typename Term>
double sum_in_lanes(const StatisticsSource& src, const Term& term) {
  constexpr int kLanes = 8;
  std::array<double, kLanes> lanes{};
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    for (std::int64_t c = 0; c < src.channels; ++c)
      lanes[c % kLanes] += term(static_cast<double>(to_float(src.data[p * src.stride + c])));
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void minmax_f32_f16_ref(const MinMaxArgs& args) {
  Range range;
  for_each_element(args.src, [&range](half value) { extend_range(range, to_float(value)); });
  *args.range = range;
}

void mean_f32_f16_ref(const MeanArgs& args) {
  constexpr int kLanes = 8;
  const StatisticsSource& src = args.src;
  std::array<double, kLanes> total{};
  std::array<float, kLanes> block{};
  std::array<half, kLanes> first{};  // half of the vector that waits for its partner
  std::int64_t vectors = 0;
  const auto flush = [&] {
    for (int lane = 0; lane < kLanes; ++lane) total[lane] += static_cast<double>(block[lane]);
    block.fill(0);
    vectors = 0;
  };
  const auto add_vector = [&](const half* values, std::int64_t count) {
    const bool starts_pair = vectors % 2 == 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = lane < count ? to_float(values[lane]) / 2 : 0;
      if (starts_pair) {
        first[lane] = to_half(value);
      } else {
        block[lane] += to_float(to_half(to_float(first[lane]) + value));
      }
    }
    if (++vectors == 2 * kMeanBlock) flush();
  };
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    for (std::int64_t c = 0; c < src.channels; c += kLanes) {
      add_vector(src.data + p * src.stride + c, src.channels - c);
    }
  }
  if (vectors % 2 != 0) add_vector(nullptr, 0);
  flush();
  double sum = 0;
  for (const double lane : total) sum += lane;
  *args.mean = static_cast<float>(2 * sum / static_cast<double>(src.pixels * src.channels));
}

void deviation_f32_f16_ref(const DeviationArgs& args) {
  const auto count = static_cast<double>(args.src.pixels * args.src.channels);
  const double mean = sum_in_lanes(args.src, [](double x) { return x; }) / count;
  const double squares =
      sum_in_lanes(args.src, [mean](double x) { return (x - mean) * (x - mean); });
  *args.deviation = static_cast<float>(std::sqrt(squares / count));
}

void quantile_f32_f16_ref(const QuantileArgs& args) {
  constexpr std::int64_t kKeys = 65536;
  auto* histogram = static_cast<std::uint32_t*>(args.scratch);
  std::fill_n(histogram, kKeys, 0U);
  for_each_element(args.src, [histogram](half value) { ++histogram[order_key(value)]; });
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    std::int64_t below = 0;
    std::uint32_t key = 0;
    while (below + histogram[key] <= args.ranks[i]) below += histogram[key++];
    args.values[i] = to_float(from_order_key(key));
  }
}

}  // namespace qpp
