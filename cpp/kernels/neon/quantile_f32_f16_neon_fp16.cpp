// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/align.h"
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr std::int64_t kGroup = 8;             // elements that are kept or left out together
constexpr std::int64_t kBlock = 64 * kGroup;   // elements that are looked at together
constexpr std::int64_t kSmallest = 4096;       // elements that are worth a sample
constexpr std::int64_t kLargestSample = 1024;  // groups
constexpr half kInfinity{0x7c00};

// The halves in the order of their values, the least first: here are infinities and zero.
constexpr std::uint32_t kFirstOrder = 0x03ff;
constexpr std::uint32_t kLastOrder = 0xfc00;

std::uint32_t to_order(half value) {
  return static_cast<std::uint16_t>((value.bits & 0x8000U) != 0 ? ~value.bits
                                                                : value.bits | 0x8000U);
}

half from_order(std::uint32_t order) {
  return half{static_cast<std::uint16_t>((order & 0x8000U) != 0 ? order & 0x7fffU : ~order)};
}

half negate(half value) { return half{static_cast<std::uint16_t>(value.bits ^ 0x8000U)}; }

/// One bit per lane of two masks, the bits of eight lanes behind each other.
QPP_NEON_INLINE uint8x16_t mark_lanes(uint16x8_t first, uint16x8_t second) {
  const uint8x16_t weights = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  return vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(first), vreinterpretq_u8_u16(second)), weights);
}

/// One bit per lane of eight masks.
QPP_NEON_INLINE std::uint64_t to_bits(const uint8x16_t (&marked)[4]) {
  const uint8x16_t sums = vpaddq_u8(vpaddq_u8(marked[0], marked[1]),  //
                                    vpaddq_u8(marked[2], marked[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

/// For each set of lanes, the bytes of a vector that move them to the front.
struct Packing {
  std::uint8_t bytes[256][16] = {};

  constexpr Packing() {
    for (unsigned lanes = 0; lanes < 256; ++lanes) {
      int place = 0;
      for (unsigned lane = 0; lane < 8; ++lane) {
        if ((lanes >> lane & 1U) == 0) continue;
        bytes[lanes][place++] = static_cast<std::uint8_t>(2 * lane);
        bytes[lanes][place++] = static_cast<std::uint8_t>(2 * lane + 1);
      }
    }
  }
};
constexpr Packing kPacking;

/// Stores the elements above the limit, and writes up to eight; returns where they end.
QPP_NEON_INLINE half* append_above(half* values, float16x8_t group, float16x8_t limit) {
  // Adds up to the set of lanes, and above eight bits to how many they are.
  const uint16x8_t weights = {0x101, 0x102, 0x104, 0x108, 0x110, 0x120, 0x140, 0x180};
  const std::uint32_t sum = vaddvq_u16(vandq_u16(vcgtq_f16(group, limit), weights));
  const uint8x16_t packed =
      vqtbl1q_u8(vreinterpretq_u8_f16(group), vld1q_u8(kPacking.bytes[sum & 0xffU]));
  vst1q_u16(&values->bits, vreinterpretq_u16_u8(packed));
  return values + (sum >> 8);
}

/// Lane g is the greatest element of vectors[g].
QPP_NEON_INLINE float16x8_t greatest_of_each(const float16x8_t (&vectors)[8]) {
  const float16x8_t first = vpmaxq_f16(vpmaxq_f16(vectors[0], vectors[1]),  //
                                       vpmaxq_f16(vectors[2], vectors[3]));
  const float16x8_t last = vpmaxq_f16(vpmaxq_f16(vectors[4], vectors[5]),  //
                                      vpmaxq_f16(vectors[6], vectors[7]));
  return vpmaxq_f16(first, last);
}

/// Lane g is the least element of vectors[g].
QPP_NEON_INLINE uint16x8_t least_of_each(const uint16x8_t (&vectors)[8]) {
  const uint16x8_t first = vpminq_u16(vpminq_u16(vectors[0], vectors[1]),  //
                                      vpminq_u16(vectors[2], vectors[3]));
  const uint16x8_t last = vpminq_u16(vpminq_u16(vectors[4], vectors[5]),  //
                                     vpminq_u16(vectors[6], vectors[7]));
  return vpminq_u16(first, last);
}

/// Lane g is the least element of vectors[g].
QPP_NEON_INLINE float16x8_t least_of_each(const float16x8_t (&vectors)[8]) {
  const float16x8_t first = vpminq_f16(vpminq_f16(vectors[0], vectors[1]),  //
                                       vpminq_f16(vectors[2], vectors[3]));
  const float16x8_t last = vpminq_f16(vpminq_f16(vectors[4], vectors[5]),  //
                                      vpminq_f16(vectors[6], vectors[7]));
  return vpminq_f16(first, last);
}

/// How many of values[0 .. padded) `test` gives a mask for; `padded` is a multiple of 64.
template <typename Test>
QPP_NEON_INLINE std::int64_t count_if(const half* values, std::int64_t padded, const Test& test) {
  constexpr std::int64_t kPart = std::int64_t{1} << 17;  // that 16 bits of four counters can count
  std::int64_t total = 0;
  for (std::int64_t first = 0; first < padded; first += kPart) {
    const std::int64_t end = std::min(first + kPart, padded);
    uint16x8_t counts[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    for (std::int64_t i = first; i < end; i += 64) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        counts[k % 4] = vsubq_u16(counts[k % 4], test(load(values + i + 8 * k)));
      }
    }
#pragma GCC unroll 4
    for (const uint16x8_t count : counts) total += vaddlvq_u16(count);
  }
  return total;
}

std::int64_t count_below(const half* values, std::int64_t padded, half bound) {
  const float16x8_t limit = load_broadcast(&bound);
  return count_if(values, padded, [&](float16x8_t value) { return vcltq_f16(value, limit); });
}

std::int64_t count_not_above(const half* values, std::int64_t padded, half bound) {
  const float16x8_t limit = load_broadcast(&bound);
  return count_if(values, padded, [&](float16x8_t value) { return vcleq_f16(value, limit); });
}

/// Completes the last 64 values; returns the count rounded up to that.
std::int64_t pad(half* values, std::int64_t count) {
  const std::int64_t padded = round_up<std::int64_t>(count, 64);
  std::fill_n(values + count, padded - count, kInfinity);
  return padded;
}

/// Where to look for the element of a rank: its order is first .. last, or taken for one of these;
/// the guess and the orders per rank around it only save passes.
struct Bracket {
  std::uint32_t first = kFirstOrder;
  std::uint32_t last = kLastOrder;
  std::uint32_t guess = 0;
  double orders_per_rank = 0;
};

/// The element of rank `rank` among padded values, by passes that count what is not above a bound:
/// a few go where the guess points, the others halve the bracket.
half select(const half* values, std::int64_t padded, std::int64_t rank, const Bracket& bracket) {
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
        count_not_above(values, padded, from_order(static_cast<std::uint32_t>(middle)));
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

/// Calls visit(block) for all elements, a block at a time. Elements that do not lie together are
/// copied; `fill` completes the last block.
template <typename Visit>
QPP_NEON_INLINE void for_each_block(const StatisticsSource& src, half fill, const Visit& visit) {
  half staging[kBlock];
  std::int64_t staged = 0;
  const bool dense = src.channels == src.stride;
  const std::int64_t pixels = dense ? 1 : src.pixels;
  const std::int64_t channels = dense ? src.pixels * src.channels : src.channels;
  for (std::int64_t p = 0; p < pixels; ++p) {
    const half* next = src.data + p * src.stride;
    const half* end = next + channels;
    while (next != end) {
      if (staged == 0 && end - next >= kBlock) {
        visit(next);
        next += kBlock;
        continue;
      }
      const std::int64_t count = std::min(end - next, kBlock - staged);
      std::copy_n(next, count, staging + staged);
      next += count;
      staged += count;
      if (staged == kBlock) {
        visit(staging);
        staged = 0;
      }
    }
  }
  if (staged == 0) return;
  std::fill_n(staging + staged, kBlock - staged, fill);
  visit(staging);
}

/// The eight elements from number `first` on.
QPP_NEON_INLINE float16x8_t load_group(const StatisticsSource& src, std::int64_t first) {
  if (src.channels == src.stride) return load(src.data + first);
  half group[kGroup];
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const std::int64_t pixel = (first + i) / src.channels;
    group[i] = src.data[pixel * src.stride + (first + i) - pixel * src.channels];
  }
  return load(group);
}

/// Groups that are spread evenly.
struct Spread {
  std::int64_t groups;  // a multiple of 64
  std::int64_t step;    // from group to group

  explicit Spread(const StatisticsSource& src) {
    const std::int64_t all = src.pixels * src.channels / kGroup;
    groups = std::clamp<std::int64_t>(all / 24 / 64 * 64, 64, kLargestSample);
    step = all / groups;
    while (std::gcd(step * kGroup, src.channels) > std::gcd(kGroup, src.channels)) {
      --step;  // or some channels would never be met
    }
  }
};

/// The greatest and the least elements, the latter negated, of groups that are spread evenly.
struct Sample {
  half ends[2][kLargestSample];
  std::int64_t groups = 0;  // a multiple of 64

  void take(const StatisticsSource& src) {
    const Spread spread(src);
    const std::int64_t step = spread.step;
    groups = spread.groups;
    for (std::int64_t i = 0; i < groups; i += 8) {
      float16x8_t vectors[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) vectors[k] = load_group(src, (i + k) * step * kGroup);
      store(ends[0] + i, greatest_of_each(vectors));
      store(ends[1] + i, vnegq_f16(least_of_each(vectors)));
    }
  }
};

/// One end of the elements, seen so that the outermost element is the greatest: at the low end, all
/// are negated.
struct Tail {
  const half* sample = nullptr;  // the greatest elements of groups
  std::int64_t sample_groups = 0;
  std::int64_t elements = 0;  // of the whole source
  std::int64_t outer = 0;     // the outermost elements that are wanted; 0: this end is not
  half limit{};               // they are almost surely not less than this
  half greatest{};            // of the sample
  half* values = nullptr;     // all elements beyond the limit
  std::int64_t room = 0;
  std::int64_t count = 0;

  /// Whether a block and what completes the last vectors fits behind `next`.
  [[nodiscard]] bool has_room(const half* next) const {
    return next + kBlock + 64 <= values + room;
  }

  /// How many groups of the sample should hold one of the `outermost` elements.
  [[nodiscard]] double expected_groups(std::int64_t outermost) const {
    const double share = static_cast<double>(outermost) / static_cast<double>(elements);
    return static_cast<double>(sample_groups) * (1 - std::pow(1 - share, kGroup));
  }

  /// Wants the `outermost`-th element, unless too much would have to be collected for it.
  void want(std::int64_t outermost) {
    if (limit_cut(outermost) <= sample_groups / 3) outer = std::max(outer, outermost);
  }

  void choose_limit() {
    if (outer == 0) return;
    float16x8_t most = load(sample);
    for (std::int64_t i = 8; i < sample_groups; i += 8) most = vmaxq_f16(most, load(sample + i));
    greatest = to_half(static_cast<float>(vmaxvq_f16(most)));
    limit = select(sample, sample_groups, sample_groups - 1 - limit_cut(outer),
                   {.first = kFirstOrder, .last = to_order(greatest)});
  }

  /// Around the `outermost`-th element.
  [[nodiscard]] Bracket bracket(std::int64_t outermost) const {
    Bracket result{.first = to_order(limit), .last = kLastOrder, .guess = 0, .orders_per_rank = 0};
    const auto inner = static_cast<std::int64_t>(expected_groups(outermost));
    result.guess = to_order(select(sample, sample_groups, sample_groups - 1 - inner,
                                   {.first = result.first, .last = to_order(greatest)}));
    const double ranks = static_cast<double>((limit_cut(outer) - inner) * elements) /
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

/// Collects the elements beyond the limits. An end that is not wanted costs nothing. False when
/// they are more than there is room for.
template <bool kHigh, bool kLow>
bool collect(const StatisticsSource& src, Tail& high, Tail& low) {
  const half least = negate(low.limit);
  const float16x8_t high_limit = load_broadcast(&high.limit);
  const float16x8_t low_limit = load_broadcast(&least);
  const float16x8_t negated_low_limit = load_broadcast(&low.limit);
  half* next_high = high.values;
  half* next_low = low.values;
  bool fits = true;
  for_each_block(src, kHigh ? high.limit : least, [&](const half* block) QPP_NEON_INLINE_LAMBDA {
    fits &= high.has_room(next_high) && low.has_room(next_low);
    if (!fits) return;
    uint8x16_t high_marked[4];
    uint8x16_t low_marked[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      uint16x8_t high_masks[2];
      uint16x8_t low_masks[2];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        float16x8_t vectors[8];
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) vectors[k] = load(block + 128 * i + 64 * j + 8 * k);
        if (kHigh) high_masks[j] = vcgtq_f16(greatest_of_each(vectors), high_limit);
        if (kLow) low_masks[j] = vcltq_f16(least_of_each(vectors), low_limit);
      }
      if (kHigh) high_marked[i] = mark_lanes(high_masks[0], high_masks[1]);
      if (kLow) low_marked[i] = mark_lanes(low_masks[0], low_masks[1]);
    }
    std::uint64_t high_bits = kHigh ? to_bits(high_marked) : 0;
    std::uint64_t low_bits = kLow ? to_bits(low_marked) : 0;
#ifdef __clang__  // which would find the second after the first loop, and hold the block until then
    asm volatile("" : "+r"(low_bits));
#endif
    for (; high_bits != 0; high_bits &= high_bits - 1) {
      const half* group = block + kGroup * std::countr_zero(high_bits);
      next_high = append_above(next_high, load(group), high_limit);
    }
    for (; low_bits != 0; low_bits &= low_bits - 1) {
      const half* group = block + kGroup * std::countr_zero(low_bits);
      next_low = append_above(next_low, vnegq_f16(load(group)), negated_low_limit);
    }
  });
  high.count = next_high - high.values;
  low.count = next_low - low.values;
  return fits && high.has_room(next_high) && low.has_room(next_low);
}

std::int64_t count_equal(const StatisticsSource& src, half value) {
  const float16x8_t wanted = load_broadcast(&value);
  std::int64_t total = 0;
  for_each_block(src, kInfinity, [&](const half* block) {
    total += count_if(block, kBlock, [&](float16x8_t v) { return vceqq_f16(v, wanted); });
  });
  return total;
}

/// The `outermost`-th element of an end, from the groups that were collected, and the sign that
/// makes it an element of the source. False when it turns out to lie elsewhere.
bool find_in_tail(const StatisticsSource& src, const Tail& tail, std::int64_t outermost, float sign,
                  float& value) {
  if (outermost <= tail.count) {
    const std::int64_t padded = pad(tail.values, tail.count);
    value = sign *
            to_float(select(tail.values, padded, tail.count - outermost, tail.bracket(outermost)));
    return true;
  }
  // All beyond the limit have been collected: it is on the limit or was missed.
  value = sign * to_float(tail.limit);
  const std::int64_t below = count_if(
      tail.sample, tail.sample_groups,
      [limit = load_broadcast(&tail.limit)](float16x8_t v) { return vcltq_f16(v, limit); });
  const std::int64_t seen = count_not_above(tail.sample, tail.sample_groups, tail.limit) - below;
  if (outermost <= tail.count + seen) return true;
  return outermost <= tail.count + count_equal(src, to_half(value));
}

/// The zeros are one value, but two in the order of halves.
half no_negative_zero(half value) { return value.bits == 0x8000U ? half{0} : value; }

/// Elements between which, or on which, the element of a rank almost surely lies.
struct Interval {
  half lo{};
  half hi{};
  double orders_per_rank = 0;
};

/// The interval of a rank, from the elements of groups that are spread evenly. Neighbours are
/// alike, so how much the sample may mislead is judged by how much its groups differ.
Interval find_interval(const StatisticsSource& src, std::int64_t rank) {
  half elements[kLargestSample * kGroup];
  const Spread spread(src);
  for (std::int64_t i = 0; i < spread.groups; ++i) {
    store(elements + i * kGroup, load_group(src, i * spread.step * kGroup));
  }
  const std::int64_t count = spread.groups * kGroup;
  const double elements_per_sampled =
      static_cast<double>(src.pixels * src.channels) / static_cast<double>(count);
  const auto middle = static_cast<std::int64_t>(static_cast<double>(rank) / elements_per_sampled);
  const half guess = select(elements, count, middle, {});

  const float16x8_t limit = load_broadcast(&guess);
  std::int64_t sum = 0;
  std::int64_t sum_of_squares = 0;
  for (std::int64_t i = 0; i < count; i += kGroup) {
    const std::int64_t below = vaddvq_u16(vshrq_n_u16(vcltq_f16(load(elements + i), limit), 15));
    sum += below;
    sum_of_squares += below * below;
  }
  const double variance = static_cast<double>(sum_of_squares) -
                          static_cast<double>(sum * sum) / static_cast<double>(spread.groups);
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

/// Halves as integers in the order of their values, except that with kPositive all negative ones
/// are only less than the others.
template <bool kPositive>
QPP_NEON_INLINE int16x8_t ordered(float16x8_t value) {
  const int16x8_t bits = vreinterpretq_s16_f16(value);
  if (kPositive) return bits;
  const uint16x8_t negative = vreinterpretq_u16_s16(vshrq_n_s16(bits, 15));
  return veorq_s16(bits, vreinterpretq_s16_u16(vshrq_n_u16(negative, 1)));
}

/// Counts the elements above the interval's lo, and collects the groups with elements between its
/// ends at `values`, whose end is returned.
template <bool kPositive>
half* collect_between(const StatisticsSource& src, const Interval& interval, half* values,
                      std::int64_t& above_lo) {
  const int16x8_t lo = ordered<kPositive>(load_broadcast(&interval.lo));
  const int16x8_t hi = ordered<kPositive>(load_broadcast(&interval.hi));
  const int16x8_t first = vaddq_s16(lo, vdupq_n_s16(1));
  const uint16x8_t width =  // of what lies between
      vqsubq_u16(vreinterpretq_u16_s16(vsubq_s16(hi, lo)), vdupq_n_u16(1));
  for_each_block(src, half{0xfc00}, [&](const half* block) {
    uint16x8_t masks[8];
    int16x8_t counts[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      uint16x8_t distances[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        const int16x8_t order = ordered<kPositive>(load(block + 64 * i + 8 * k));
        counts[k % 2] = vsubq_s16(counts[k % 2], vreinterpretq_s16_u16(vcgtq_s16(order, lo)));
        distances[k] = vreinterpretq_u16_s16(vsubq_s16(order, first));
      }
      masks[i] = vcltq_u16(least_of_each(distances), width);
    }
    above_lo += vaddvq_s16(vaddq_s16(counts[0], counts[1]));
    const uint8x16_t marked[4] = {mark_lanes(masks[0], masks[1]), mark_lanes(masks[2], masks[3]),
                                  mark_lanes(masks[4], masks[5]), mark_lanes(masks[6], masks[7])};
    for (std::uint64_t bits = to_bits(marked); bits != 0; bits &= bits - 1) {
      store(values, load(block + kGroup * std::countr_zero(bits)));
      values += kGroup;
    }
  });
  return values;
}

/// Finds a rank in the middle by one pass. False when it turns out to lie elsewhere.
bool find_between(const QuantileArgs& args, std::int64_t rank, float& value) {
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
  const std::int64_t left_of = count_not_above(values, padded, interval.lo);
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
  const std::int64_t below_hi = not_above_lo + count_below(values, padded, interval.hi) - left_of;
  return rank < below_hi + count_equal(args.src, interval.hi);
}

/// Finds all ranks of a direct copy of the elements.
void find_in_copy(const QuantileArgs& args, std::int64_t count) {
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
std::uint32_t find_in_tails(const QuantileArgs& args, std::int64_t count) {
  Sample sample;
  sample.take(args.src);
  half* scratch = static_cast<half*>(args.scratch);
  const std::int64_t room = count / 2;
  Tail high{.sample = sample.ends[0],
            .sample_groups = sample.groups,
            .elements = count,
            .values = scratch,
            .room = room};
  Tail low{.sample = sample.ends[1],
           .sample_groups = sample.groups,
           .elements = count,
           .values = scratch + room,
           .room = room};
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    if (rank >= count / 2) {
      high.want(count - rank);
    } else {
      low.want(rank + 1);
    }
  }
  std::uint32_t remaining = (1U << args.rank_count) - 1;
  if (high.outer == 0 && low.outer == 0) return remaining;
  high.choose_limit();
  low.choose_limit();
  const bool collected = low.outer == 0    ? collect<true, false>(args.src, high, low)
                         : high.outer == 0 ? collect<false, true>(args.src, high, low)
                                           : collect<true, true>(args.src, high, low);
  if (!collected) return remaining;

  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    const bool is_high = rank >= count / 2;
    const Tail& tail = is_high ? high : low;
    const std::int64_t outermost = is_high ? count - rank : rank + 1;
    if (outermost <= tail.outer &&
        find_in_tail(args.src, tail, outermost, is_high ? 1 : -1, args.values[i])) {
      remaining &= ~(1U << i);
    }
  }
  return remaining;
}

}  // namespace

// values[i] = the element of rank ranks[i] among src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements; finite
// method         The greatest and the least elements of sampled groups (vectors of 8) tell limits
//                beyond which the wanted elements lie, with few others. One pass finds the groups
//                with an element beyond and packs those; the ranks are selected from these. A rank
//                that turns out to be on a limit needs its equals counted, in the sample or else in
//                a pass. For a rank in the middle, or one that was missed, the sample tells two
//                elements that it lies between: a pass of its own counts what is not above the
//                first and collects the groups with an element between. If that misses, too, the
//                reference finds it
// preconditions  scratch of quantile_scratch_bytes(); no over-read
// registers      8 for the elements, 8 to 16 for masks, 2 for the limits
// loop budget    512 elements, both ends: 64 loads; 56 FMAXP, 56 FMINP, 16 FCMGT, 8 UZP1, 8 AND,
//                10 ADDP/UMOV: 154 slots of the vector pipes, 77 cycles on A76 (0.15 an element);
//                a group beyond a limit: 6 cycles; eight elements beyond: 1 for each pass that
//                selects from them;
//                512 elements, in the middle: 64 loads; 128 FCM, 64 SUB, 64 AND, 56 UMAXP, 26 as
//                above: 338 slots, 169 cycles (0.33 an element)
// choices        FMAXP, so that a lane tells of eight successive elements, which one load, one
//                table look-up and one store collect. Storing whole groups takes less where they
//                stay in the caches, but they are six times as much to write and to select from.
//                Modelled A76, both ends: 56x56x64 elements 0.25 cycles an element at 0.9997, 0.40
//                at 0.99; 224x224x64 0.49 and 0.56; three standard deviations make a miss a matter
//                of 1e-3
void quantile_f32_f16_neon_fp16(const QuantileArgs& args) {
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

}  // namespace qpp
