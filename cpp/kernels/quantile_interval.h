// SPDX-License-Identifier: Apache-2.0
//
// A rank in the middle of the order, or one that was missed, a part of quantile_search.h: the
// sample gives two elements around it, and one pass counts and collects between them.
#pragma once

#include "kernels/quantile_source.h"

namespace qpp {
namespace {

/// Elements between which, or on which, the element of a rank almost surely is.
struct Interval {
  half lo{};
  half hi{};
  double orders_per_rank = 0;
};

/// The interval of a rank, from sampled groups. Neighbours are alike, so how much the sample may
/// mislead is judged by how much its groups differ.
template <typename Engine>
Interval find_interval(const StatisticsSource& src, std::int64_t rank) {
  half elements[kMaxSample * kGroup];
  const SampleStride sample(src);
  for (std::int64_t i = 0; i < sample.groups; ++i) {
    half room[kGroup];
    std::copy_n(group_at(src, i * sample.step * kGroup, room), kGroup, elements + i * kGroup);
  }
  const std::int64_t count = sample.groups * kGroup;
  const double elements_per_sampled =
      static_cast<double>(src.pixels * src.channels) / static_cast<double>(count);
  const auto middle = static_cast<std::int64_t>(static_cast<double>(rank) / elements_per_sampled);
  const half guess = select<Engine>(elements, count, middle, {});

  std::int64_t sum = 0;
  std::int64_t sum_of_squares = 0;
  Engine::count_in_groups(elements, count, guess, sum, sum_of_squares);
  const double variance = static_cast<double>(sum_of_squares) -
                          static_cast<double>(sum * sum) / static_cast<double>(sample.groups);
  const std::int64_t margin = static_cast<std::int64_t>(3 * std::sqrt(variance)) + kGroup;
  const std::int64_t first = std::max<std::int64_t>(middle - margin, 0);
  const std::int64_t last = std::min(middle + margin, count - 1);
  const std::uint32_t order = to_order(guess);
  const half lo = no_negative_zero(
      select<Engine>(elements, count, first, {.first = kFirstOrder, .last = order}));
  const half hi =
      no_negative_zero(select<Engine>(elements, count, last, {.first = order, .last = kLastOrder}));
  return {.lo = lo,
          .hi = hi,
          .orders_per_rank = static_cast<double>(to_order(hi) - to_order(lo)) /
                             (static_cast<double>(last - first) * elements_per_sampled)};
}

/// Counts the elements above the interval's lo, and collects at least the elements between its
/// ends at `values`; returns where they end.
template <typename Engine, bool kPositive>
half* collect_between(const StatisticsSource& src, const Interval& interval, half* values,
                      std::int64_t& above_lo) {
  typename Engine::template Between<kPositive> between(interval.lo, interval.hi);
  constexpr half kNegativeInfinity{0xfc00};
  for_each_block(src, kNegativeInfinity, [&](const half* block) __attribute__((always_inline)) {
    between.append(block, values, above_lo);
  });
  return values;
}

/// Finds a rank in the middle by one pass. False when it turns out not to be there.
template <typename Engine>
bool find_between(const QuantileArgs& args, std::int64_t rank, float& value) {
  const Interval interval = find_interval<Engine>(args.src, rank);
  half* values = static_cast<half*>(args.scratch);
  std::int64_t above_lo = 0;
  const half* end = (interval.lo.bits & 0x8000U) == 0
                        ? collect_between<Engine, true>(args.src, interval, values, above_lo)
                        : collect_between<Engine, false>(args.src, interval, values, above_lo);
  const std::int64_t not_above_lo = args.src.pixels * args.src.channels - above_lo;
  if (rank < not_above_lo) {
    value = to_float(interval.lo);
    return rank >= not_above_lo - count_equal<Engine>(args.src, interval.lo);
  }
  const std::int64_t padded = pad(values, end - values);
  const std::int64_t left_of = Engine::count_not_above(values, padded, interval.lo);
  const std::uint32_t first = to_order(interval.lo);
  const double from_lo = static_cast<double>(rank - not_above_lo) * interval.orders_per_rank;
  const half found = select<Engine>(values, padded, rank - not_above_lo + left_of,
                                    {.first = first,
                                     .last = to_order(interval.hi),
                                     .guess = first + static_cast<std::uint32_t>(from_lo),
                                     .orders_per_rank = interval.orders_per_rank});
  value = to_float(found);
  if (found.bits != interval.hi.bits) return true;
  if (interval.lo.bits == interval.hi.bits) return false;
  const std::int64_t below_hi =
      not_above_lo + Engine::count_below(values, padded, interval.hi) - left_of;
  return rank < below_hi + count_equal<Engine>(args.src, interval.hi);
}

}  // namespace
}  // namespace qpp
