// SPDX-License-Identifier: Apache-2.0
//
// Ranks near an end of the order, a part of quantile_search.h: the sample gives limits, one pass
// collects the elements beyond them, and the ranks are selected from these.
#pragma once

#include "kernels/quantile_source.h"

namespace qpp {
namespace {

/// The greatest and the least elements, the latter negated, of sampled groups.
template <typename Engine>
struct Sample {
  half ends[2][kMaxSample];
  std::int64_t groups = 0;  // a multiple of 64

  void take(const StatisticsSource& src) {
    const SampleStride sample(src);
    groups = sample.groups;
    for (std::int64_t i = 0; i < groups; i += 8) {
      half room[8][kGroup];
      const half* pointers[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        pointers[k] = group_at(src, (i + k) * sample.step * kGroup, room[k]);
      }
      Engine::find_ends(pointers, ends[0] + i, ends[1] + i);
    }
  }
};

/// One end of the elements, with signs such that the outermost element is the greatest: at the low
/// end, all are negated.
template <typename Engine>
struct Tail {
  const half* sample = nullptr;  // the greatest elements of groups
  std::int64_t sample_groups = 0;
  std::int64_t elements = 0;     // of the whole source
  std::int64_t k_outermost = 0;  // elements that are requested; 0: this end is not
  half limit{};                  // they are almost surely not less than this
  half greatest{};               // of the sample
  half* values = nullptr;        // all elements beyond the limit
  std::int64_t room = 0;
  std::int64_t count = 0;

  /// Whether a block and the padding of the last vectors fit after `next`.
  [[nodiscard]] bool has_room(const half* next) const {
    return next + kBlock + 64 <= values + room;
  }

  /// How many groups of the sample should hold one of the `outermost` elements.
  [[nodiscard]] double expected_groups(std::int64_t outermost) const {
    const double share = static_cast<double>(outermost) / static_cast<double>(elements);
    return static_cast<double>(sample_groups) * (1 - std::pow(1 - share, kGroup));
  }

  /// Requests the `outermost`-th element, unless too much would have to be collected for it.
  void request_rank(std::int64_t outermost) {
    if (limit_cut(outermost) <= sample_groups / 3) {
      k_outermost = std::max(k_outermost, outermost);
    }
  }

  void choose_limit() {
    if (k_outermost == 0) return;
    greatest = Engine::greatest(sample, sample_groups);
    limit = select<Engine>(sample, sample_groups, sample_groups - 1 - limit_cut(k_outermost),
                           {.first = kFirstOrder, .last = to_order(greatest)});
  }

  /// Around the `outermost`-th element.
  [[nodiscard]] Bracket bracket(std::int64_t outermost) const {
    Bracket result{.first = to_order(limit), .last = kLastOrder};
    const auto inner = static_cast<std::int64_t>(expected_groups(outermost));
    result.guess = to_order(select<Engine>(sample, sample_groups, sample_groups - 1 - inner,
                                           {.first = result.first, .last = to_order(greatest)}));
    const double ranks = static_cast<double>((limit_cut(k_outermost) - inner) * elements) /
                         static_cast<double>(sample_groups * kGroup);
    result.orders_per_rank = static_cast<double>(result.guess - result.first) / ranks;
    return result;
  }

 private:
  /// Groups of the sample beyond the limit: three standard deviations more than are expected.
  [[nodiscard]] std::int64_t limit_cut(std::int64_t outermost) const {
    const double expected = expected_groups(outermost);
    return static_cast<std::int64_t>(expected + 3 * std::sqrt(expected)) + 3;
  }
};

/// Collects the elements beyond the limits. An end that is not requested costs nothing. False
/// when they are more than there is room for.
template <typename Engine, bool kHigh, bool kLow>
bool collect(const StatisticsSource& src, Tail<Engine>& high, Tail<Engine>& low) {
  typename Engine::template Beyond<kHigh, kLow> beyond(high.limit, low.limit);
  const half least{static_cast<std::uint16_t>(low.limit.bits ^ 0x8000U)};
  half* next_high = high.values;
  half* next_low = low.values;
  bool fits = true;
  for_each_block(src, kHigh ? high.limit : least,
                 [&](const half* block) __attribute__((always_inline)) {
                   fits &= high.has_room(next_high) && low.has_room(next_low);
                   if (fits) beyond.append(block, next_high, next_low);
                 });
  high.count = next_high - high.values;
  low.count = next_low - low.values;
  return fits && high.has_room(next_high) && low.has_room(next_low);
}

/// The `outermost`-th element of an end, from the elements that were collected, and the sign that
/// makes it an element of the source. False when it turns out not to be there.
template <typename Engine>
bool find_in_tail(const StatisticsSource& src, const Tail<Engine>& tail, std::int64_t outermost,
                  float sign, float& value) {
  if (outermost <= tail.count) {
    const std::int64_t padded = pad(tail.values, tail.count);
    value = sign * to_float(select<Engine>(tail.values, padded, tail.count - outermost,
                                           tail.bracket(outermost)));
    return true;
  }
  // All beyond the limit have been collected: it is on the limit or was missed.
  value = sign * to_float(tail.limit);
  const std::int64_t sampled = Engine::count_equal(tail.sample, tail.sample_groups, tail.limit);
  if (outermost <= tail.count + sampled) return true;
  return outermost <= tail.count + count_equal<Engine>(src, to_half(value));
}

/// Finds the ranks near both ends in one pass. Returns a bit for each rank that remains to be
/// found.
template <typename Engine>
std::uint32_t find_in_tails(const QuantileArgs& args, std::int64_t count) {
  Sample<Engine> sample;
  sample.take(args.src);
  const std::int64_t room = count / 2;
  Tail<Engine> high{.sample = sample.ends[0],
                    .sample_groups = sample.groups,
                    .elements = count,
                    .values = static_cast<half*>(args.scratch),
                    .room = room};
  Tail<Engine> low{.sample = sample.ends[1],
                   .sample_groups = sample.groups,
                   .elements = count,
                   .values = high.values + room,
                   .room = room};
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    if (rank >= count / 2) {
      high.request_rank(count - rank);
    } else {
      low.request_rank(rank + 1);
    }
  }
  std::uint32_t remaining = (1U << args.rank_count) - 1;
  if (high.k_outermost == 0 && low.k_outermost == 0) return remaining;
  high.choose_limit();
  low.choose_limit();
  const bool collected = low.k_outermost == 0    ? collect<Engine, true, false>(args.src, high, low)
                         : high.k_outermost == 0 ? collect<Engine, false, true>(args.src, high, low)
                                                 : collect<Engine, true, true>(args.src, high, low);
  if (!collected) return remaining;

  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    const bool is_high = rank >= count / 2;
    const Tail<Engine>& tail = is_high ? high : low;
    const std::int64_t outermost = is_high ? count - rank : rank + 1;
    if (outermost <= tail.k_outermost &&
        find_in_tail<Engine>(args.src, tail, outermost, is_high ? 1 : -1, args.values[i])) {
      remaining &= ~(1U << i);
    }
  }
  return remaining;
}
}  // namespace
}  // namespace qpp
