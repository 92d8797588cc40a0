// SPDX-License-Identifier: Apache-2.0
//
// How quantiles are found exactly in little more than one pass; vector kernels share it.
//
// The greatest and the least elements of sampled groups (8 consecutive elements) give limits beyond
// which the wanted elements are found, with few others. One pass collects the elements beyond; the
// ranks are selected from these. A rank that turns out to be on a limit needs its equals counted,
// in the sample or else in a pass. For a rank in the middle, or one that was missed, the sample
// gives two elements that it is between: a pass of its own counts what is above the first and
// collects the elements between. If that misses, too, the reference finds it. Three standard
// deviations of margin make a miss a matter of 1e-3.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/align.h"
#include "kernels/variants.h"

namespace qpp {

/// `Engine`, a class of the including file's unnamed namespace (which keeps all of this local to
/// the file, as it is compiled for the file's instruction set), has the passes over elements:
///
///   // How many of values[0 .. padded), a multiple of 64, compare so; the zeros are equal.
///   int64 count_below(values, padded, bound), count_not_above(..), count_equal(..)
///   half greatest(values, padded)
///   // Element g is the greatest and the negated least element of groups[g].
///   void find_ends(const half* const (&groups)[8], half* greatest, half* negated_least)
///   // Adds up, for groups of 8, how many elements are below the bound, and the squares of that.
///   void count_in_groups(values, padded, bound, int64& sum, int64& sum_of_squares)
///   // Appends the elements of a block above `high`, and negated those whose negation is above
///   // `low`; may write 8 elements more.
///   template <bool kHigh, bool kLow> class Beyond(half high, half low)
///     void append(block, half*& next_high, half*& next_low)
///   // Appends at least the elements between `lo` and `hi`, and adds up the elements above `lo`,
///   // which is not negative if kPositive.
///   template <bool kPositive> class Between(half lo, half hi)
///     void append(block, half*& next, int64& above_lo)
template <typename Engine>
class QuantileSearch {
 public:
  static constexpr std::int64_t kGroup = 8;            // elements that are sampled together
  static constexpr std::int64_t kBlock = 64 * kGroup;  // elements that are visited together

  /// What a quantile kernel does.
  static void run(const QuantileArgs& args) {
    const std::int64_t count = args.src.pixels * args.src.channels;
    if (count <= kSmallest) {
      find_in_copy(args, count);
      return;
    }
    const std::uint32_t remaining = find_in_tails(args, count);
    for (std::int64_t i = 0; i < args.rank_count; ++i) {
      if ((remaining >> i & 1) == 0 || find_between(args, args.ranks[i], args.values[i])) continue;
      quantile_f32_f16_ref(args);
      return;
    }
  }

 private:
  static constexpr std::int64_t kSmallest = 4096;       // elements that are worth a sample
  static constexpr std::int64_t kLargestSample = 1024;  // groups
  static constexpr half kInfinity{0x7c00};

  // The halves in the order of their values, the least first: here are infinities and zero.
  static constexpr std::uint32_t kFirstOrder = 0x03ff;
  static constexpr std::uint32_t kLastOrder = 0xfc00;

  static std::uint32_t to_order(half value) {
    return static_cast<std::uint16_t>((value.bits & 0x8000U) != 0 ? ~value.bits
                                                                  : value.bits | 0x8000U);
  }

  static half from_order(std::uint32_t order) {
    return half{static_cast<std::uint16_t>((order & 0x8000U) != 0 ? order & 0x7fffU : ~order)};
  }

  /// The zeros are one value, but two in the order of halves.
  static half no_negative_zero(half value) { return value.bits == 0x8000U ? half{0} : value; }

  /// Completes the last 64 values; returns the count rounded up to that.
  static std::int64_t pad(half* values, std::int64_t count) {
    const std::int64_t padded = round_up<std::int64_t>(count, 64);
    std::fill_n(values + count, padded - count, kInfinity);
    return padded;
  }

  /// Where to look for the element of a rank: its order is first .. last, or taken for one of
  /// these; the guess and the orders per rank around it only save passes.
  struct Bracket {
    std::uint32_t first = kFirstOrder;
    std::uint32_t last = kLastOrder;
    std::uint32_t guess = 0;
    double orders_per_rank = 0;
  };

  /// The element of rank `rank` among padded values, by passes that count what is not above a
  /// bound: a few go where the guess points, the others halve the bracket.
  static half select(const half* values, std::int64_t padded, std::int64_t rank,
                     const Bracket& bracket) {
    constexpr int kGuided = 6;
    std::int64_t first = bracket.first;
    std::int64_t last = bracket.last;
    double next = bracket.guess;
    for (int pass = bracket.guess == 0 ? kGuided : 0; first < last; ++pass) {
      const std::int64_t middle =
          pass < kGuided ? static_cast<std::int64_t>(std::clamp(next, static_cast<double>(first),
                                                                static_cast<double>(last - 1)))
                         : (first + last) / 2;
      const std::int64_t count =
          Engine::count_not_above(values, padded, from_order(static_cast<std::uint32_t>(middle)));
      const auto middle_order = static_cast<double>(middle);
      if (count > rank) {
        last = middle;
        next = middle_order - 1 -
               std::floor(static_cast<double>(count - 1 - rank) * bracket.orders_per_rank);
      } else {
        first = middle + 1;
        next = middle_order + 1 +
               std::floor(static_cast<double>(rank - count) * bracket.orders_per_rank);
      }
    }
    return from_order(static_cast<std::uint32_t>(first));
  }

  /// Calls visit(block) for all elements, a block at a time. Elements that are not contiguous are
  /// copied, in whole groups; `fill` completes the last block.
  template <typename Visit>
  [[gnu::always_inline]] static void for_each_block(const StatisticsSource& src, half fill,
                                                    const Visit& visit) {
    half staging[kBlock + kGroup];
    std::int64_t staged = 0;
    if (src.channels == src.stride) {
      const half* next = src.data;
      const half* const end = next + src.pixels * src.channels;
      for (; end - next >= kBlock; next += kBlock) visit(next);
      staged = end - next;
      std::copy_n(next, staged, staging);
    } else {
      for (std::int64_t p = 0; p < src.pixels; ++p) {
        const half* pixel = src.data + p * src.stride;
        for (std::int64_t c = 0; c < src.channels; c += kGroup) {
          std::copy_n(pixel + c, kGroup, staging + staged);
          staged += std::min(kGroup, src.channels - c);
          if (staged < kBlock) continue;
          visit(staging);
          staged -= kBlock;
          std::copy_n(staging + kBlock, kGroup, staging);
        }
      }
    }
    if (staged == 0) return;
    std::fill_n(staging + staged, kBlock - staged, fill);
    visit(staging);
  }

  static std::int64_t count_equal(const StatisticsSource& src, half value) {
    std::int64_t total = 0;
    for_each_block(src, kInfinity,
                   [&](const half* block) { total += Engine::count_equal(block, kBlock, value); });
    return total;
  }

  /// The eight elements from number `first` on, copied to `room` if they are not contiguous.
  [[gnu::always_inline]] static const half* group_at(const StatisticsSource& src,
                                                     std::int64_t first, half* room) {
    if (src.channels == src.stride) return src.data + first;
    std::int64_t channel = first % src.channels;
    const half* pixel = src.data + first / src.channels * src.stride;
    for (std::int64_t i = 0; i < kGroup; ++i) {
      room[i] = pixel[channel];
      if (++channel < src.channels) continue;
      channel = 0;
      pixel += src.stride;
    }
    return room;
  }

  /// Groups at even distances.
  struct SampleStride {
    std::int64_t groups;  // a multiple of 64
    std::int64_t step;    // from group to group

    explicit SampleStride(const StatisticsSource& src) {
      const std::int64_t all = src.pixels * src.channels / kGroup;
      groups = std::clamp<std::int64_t>(all / 24 / 64 * 64, 64, kLargestSample);
      step = all / groups;
      while (std::gcd(step * kGroup, src.channels) > std::gcd(kGroup, src.channels)) {
        --step;  // or some channels would never be met
      }
    }
  };

  /// The greatest and the least elements, the latter negated, of sampled groups.
  struct Sample {
    half ends[2][kLargestSample];
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

  /// One end of the elements, seen so that the outermost element is the greatest: at the low end,
  /// all are negated.
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

    /// Whether a block and what completes the last vectors fits after `next`.
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
      limit = select(sample, sample_groups, sample_groups - 1 - limit_cut(k_outermost),
                     {.first = kFirstOrder, .last = to_order(greatest)});
    }

    /// Around the `outermost`-th element.
    [[nodiscard]] Bracket bracket(std::int64_t outermost) const {
      Bracket result{.first = to_order(limit), .last = kLastOrder};
      const auto inner = static_cast<std::int64_t>(expected_groups(outermost));
      result.guess = to_order(select(sample, sample_groups, sample_groups - 1 - inner,
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
  template <bool kHigh, bool kLow>
  static bool collect(const StatisticsSource& src, Tail& high, Tail& low) {
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
  static bool find_in_tail(const StatisticsSource& src, const Tail& tail, std::int64_t outermost,
                           float sign, float& value) {
    if (outermost <= tail.count) {
      const std::int64_t padded = pad(tail.values, tail.count);
      value = sign * to_float(select(tail.values, padded, tail.count - outermost,
                                     tail.bracket(outermost)));
      return true;
    }
    // All beyond the limit have been collected: it is on the limit or was missed.
    value = sign * to_float(tail.limit);
    const std::int64_t sampled = Engine::count_equal(tail.sample, tail.sample_groups, tail.limit);
    if (outermost <= tail.count + sampled) return true;
    return outermost <= tail.count + count_equal(src, to_half(value));
  }

  /// Elements between which, or on which, the element of a rank almost surely is.
  struct Interval {
    half lo{};
    half hi{};
    double orders_per_rank = 0;
  };

  /// The interval of a rank, from sampled groups. Neighbours are alike, so how much the sample may
  /// mislead is judged by how much its groups differ.
  static Interval find_interval(const StatisticsSource& src, std::int64_t rank) {
    half elements[kLargestSample * kGroup];
    const SampleStride sample(src);
    for (std::int64_t i = 0; i < sample.groups; ++i) {
      half room[kGroup];
      std::copy_n(group_at(src, i * sample.step * kGroup, room), kGroup, elements + i * kGroup);
    }
    const std::int64_t count = sample.groups * kGroup;
    const double elements_per_sampled =
        static_cast<double>(src.pixels * src.channels) / static_cast<double>(count);
    const auto middle = static_cast<std::int64_t>(static_cast<double>(rank) / elements_per_sampled);
    const half guess = select(elements, count, middle, {});

    std::int64_t sum = 0;
    std::int64_t sum_of_squares = 0;
    Engine::count_in_groups(elements, count, guess, sum, sum_of_squares);
    const double variance = static_cast<double>(sum_of_squares) -
                            static_cast<double>(sum * sum) / static_cast<double>(sample.groups);
    const std::int64_t margin = static_cast<std::int64_t>(3 * std::sqrt(variance)) + kGroup;
    const std::int64_t first = std::max<std::int64_t>(middle - margin, 0);
    const std::int64_t last = std::min(middle + margin, count - 1);
    const std::uint32_t order = to_order(guess);
    const half lo =
        no_negative_zero(select(elements, count, first, {.first = kFirstOrder, .last = order}));
    const half hi =
        no_negative_zero(select(elements, count, last, {.first = order, .last = kLastOrder}));
    return {.lo = lo,
            .hi = hi,
            .orders_per_rank = static_cast<double>(to_order(hi) - to_order(lo)) /
                               (static_cast<double>(last - first) * elements_per_sampled)};
  }

  /// Counts the elements above the interval's lo, and collects at least the elements between its
  /// ends at `values`; returns where they end.
  template <bool kPositive>
  static half* collect_between(const StatisticsSource& src, const Interval& interval, half* values,
                               std::int64_t& above_lo) {
    typename Engine::template Between<kPositive> between(interval.lo, interval.hi);
    constexpr half kNegativeInfinity{0xfc00};
    for_each_block(src, kNegativeInfinity, [&](const half* block) __attribute__((always_inline)) {
      between.append(block, values, above_lo);
    });
    return values;
  }

  /// Finds a rank in the middle by one pass. False when it turns out not to be there.
  static bool find_between(const QuantileArgs& args, std::int64_t rank, float& value) {
    const Interval interval = find_interval(args.src, rank);
    half* values = static_cast<half*>(args.scratch);
    std::int64_t above_lo = 0;
    const half* end = (interval.lo.bits & 0x8000U) == 0
                          ? collect_between<true>(args.src, interval, values, above_lo)
                          : collect_between<false>(args.src, interval, values, above_lo);
    const std::int64_t not_above_lo = args.src.pixels * args.src.channels - above_lo;
    if (rank < not_above_lo) {
      value = to_float(interval.lo);
      return rank >= not_above_lo - count_equal(args.src, interval.lo);
    }
    const std::int64_t padded = pad(values, end - values);
    const std::int64_t left_of = Engine::count_not_above(values, padded, interval.lo);
    const std::uint32_t first = to_order(interval.lo);
    const double from_lo = static_cast<double>(rank - not_above_lo) * interval.orders_per_rank;
    const half found = select(values, padded, rank - not_above_lo + left_of,
                              {.first = first,
                               .last = to_order(interval.hi),
                               .guess = first + static_cast<std::uint32_t>(from_lo),
                               .orders_per_rank = interval.orders_per_rank});
    value = to_float(found);
    if (found.bits != interval.hi.bits) return true;
    if (interval.lo.bits == interval.hi.bits) return false;
    const std::int64_t below_hi =
        not_above_lo + Engine::count_below(values, padded, interval.hi) - left_of;
    return rank < below_hi + count_equal(args.src, interval.hi);
  }

  /// Finds all ranks in a copy of the elements.
  static void find_in_copy(const QuantileArgs& args, std::int64_t count) {
    half* copy = static_cast<half*>(args.scratch);
    half* end = copy;
    for (std::int64_t p = 0; p < args.src.pixels; ++p) {
      end = std::copy_n(args.src.data + p * args.src.stride, args.src.channels, end);
    }
    const std::int64_t padded = pad(copy, count);
    for (std::int64_t i = 0; i < args.rank_count; ++i) {
      args.values[i] = to_float(select(copy, padded, args.ranks[i], {}));
    }
  }

  /// Finds the ranks near both ends in one pass. Returns a bit for each rank that remains to be
  /// found.
  static std::uint32_t find_in_tails(const QuantileArgs& args, std::int64_t count) {
    Sample sample;
    sample.take(args.src);
    const std::int64_t room = count / 2;
    Tail high{.sample = sample.ends[0],
              .sample_groups = sample.groups,
              .elements = count,
              .values = static_cast<half*>(args.scratch),
              .room = room};
    Tail low{.sample = sample.ends[1],
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
    const bool collected = low.k_outermost == 0    ? collect<true, false>(args.src, high, low)
                           : high.k_outermost == 0 ? collect<false, true>(args.src, high, low)
                                                   : collect<true, true>(args.src, high, low);
    if (!collected) return remaining;

    for (std::int64_t i = 0; i < args.rank_count; ++i) {
      const std::int64_t rank = args.ranks[i];
      const bool is_high = rank >= count / 2;
      const Tail& tail = is_high ? high : low;
      const std::int64_t outermost = is_high ? count - rank : rank + 1;
      if (outermost <= tail.k_outermost &&
          find_in_tail(args.src, tail, outermost, is_high ? 1 : -1, args.values[i])) {
        remaining &= ~(1U << i);
      }
    }
    return remaining;
  }
};

}  // namespace qpp
