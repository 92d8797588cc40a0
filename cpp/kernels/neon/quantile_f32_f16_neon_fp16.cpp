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

/// One bit per lane of eight masks.
QPP_NEON_INLINE std::uint64_t to_bits(const uint16x8_t (&masks)[8]) {
  const uint8x16_t weights = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint8x16_t bytes[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const uint8x16_t pair =
        vuzp1q_u8(vreinterpretq_u8_u16(masks[2 * i]), vreinterpretq_u8_u16(masks[2 * i + 1]));
    bytes[i] = vandq_u8(pair, weights);
  }
  const uint8x16_t sums = vpaddq_u8(vpaddq_u8(bytes[0], bytes[1]), vpaddq_u8(bytes[2], bytes[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
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

/// The greatest and the least elements, the latter negated, of groups that are spread evenly.
struct Sample {
  half ends[2][kLargestSample];
  std::int64_t groups = 0;  // a multiple of 64

  void take(const StatisticsSource& src) {
    const std::int64_t all = src.pixels * src.channels / kGroup;
    groups = std::clamp<std::int64_t>(all / 24 / 64 * 64, 64, kLargestSample);
    std::int64_t step = all / groups;
    while (std::gcd(step * kGroup, src.channels) > std::gcd(kGroup, src.channels)) {
      --step;  // or some channels would never be met
    }
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
  half* values = nullptr;     // all groups with an element beyond the limit
  std::int64_t count = 0;

  /// How many groups of the sample should hold one of the `outermost` elements.
  [[nodiscard]] double expected_groups(std::int64_t outermost) const {
    const double share = static_cast<double>(outermost) / static_cast<double>(elements);
    return static_cast<double>(sample_groups) * (1 - std::pow(1 - share, kGroup));
  }

  /// Chooses the limit: three standard deviations beyond what is to be expected. False when it
  /// would let pass too much.
  bool choose_limit() {
    if (outer == 0) return true;
    const std::int64_t cut = limit_cut();
    if (cut > sample_groups / 3) return false;
    float16x8_t most = load(sample);
    for (std::int64_t i = 8; i < sample_groups; i += 8) most = vmaxq_f16(most, load(sample + i));
    greatest = to_half(static_cast<float>(vmaxvq_f16(most)));
    limit = select(sample, sample_groups, sample_groups - 1 - cut,
                   {.first = kFirstOrder, .last = to_order(greatest)});
    return true;
  }

  /// Around the `outermost`-th element.
  [[nodiscard]] Bracket bracket(std::int64_t outermost) const {
    Bracket result{.first = to_order(limit), .last = kLastOrder, .guess = 0, .orders_per_rank = 0};
    const auto inner = static_cast<std::int64_t>(expected_groups(outermost));
    result.guess = to_order(select(sample, sample_groups, sample_groups - 1 - inner,
                                   {.first = result.first, .last = to_order(greatest)}));
    const double ranks = static_cast<double>((limit_cut() - inner) * elements) /
                         static_cast<double>(sample_groups * kGroup);
    result.orders_per_rank = static_cast<double>(result.guess - result.first) / ranks;
    return result;
  }

 private:
  [[nodiscard]] std::int64_t limit_cut() const {
    const double expected = expected_groups(outer);
    return static_cast<std::int64_t>(expected + 3 * std::sqrt(expected)) + 3;
  }
};

/// Collects the groups with elements beyond the limits, those of the low end stored downwards. An
/// end that is not wanted costs nothing. False when they are more than the scratch holds.
template <bool kHigh, bool kLow>
bool collect(const StatisticsSource& src, Tail& high, Tail& low) {
  const half least = negate(low.limit);
  const float16x8_t high_limit = load_broadcast(&high.limit);
  const float16x8_t low_limit = load_broadcast(&least);
  const half* end = low.values;
  half* next_high = high.values;
  half* next_low = low.values;
  for_each_block(src, kHigh ? high.limit : least, [&](const half* block) {
    if (next_low - next_high < 2 * kBlock + 64) return;  // nothing more is needed, it has failed
    uint16x8_t high_masks[8];
    uint16x8_t low_masks[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      float16x8_t vectors[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) vectors[k] = load(block + 64 * i + 8 * k);
      if (kHigh) high_masks[i] = vcgtq_f16(greatest_of_each(vectors), high_limit);
      if (kLow) low_masks[i] = vcltq_f16(least_of_each(vectors), low_limit);
    }
    if (kHigh) {
      for (std::uint64_t bits = to_bits(high_masks); bits != 0; bits &= bits - 1) {
        store(next_high, load(block + kGroup * std::countr_zero(bits)));
        next_high += kGroup;
      }
    }
    if (kLow) {
      for (std::uint64_t bits = to_bits(low_masks); bits != 0; bits &= bits - 1) {
        next_low -= kGroup;
        store(next_low, vnegq_f16(load(block + kGroup * std::countr_zero(bits))));
      }
    }
  });
  high.count = next_high - high.values;
  low.count = end - next_low;
  low.values = next_low;
  return next_low - next_high >= 2 * kBlock + 64;
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
  const std::int64_t padded = pad(tail.values, tail.count);
  if (outermost <= tail.count) {
    const half found = select(tail.values, padded, tail.count - outermost, tail.bracket(outermost));
    value = sign * to_float(found);
    if (to_float(found) > to_float(tail.limit)) return true;
  }
  // All beyond the limit have been collected: it is on the limit or was missed.
  value = sign * to_float(tail.limit);
  const std::int64_t beyond = tail.count - count_not_above(tail.values, padded, tail.limit);
  const std::int64_t below = count_if(
      tail.sample, tail.sample_groups,
      [limit = load_broadcast(&tail.limit)](float16x8_t v) { return vcltq_f16(v, limit); });
  const std::int64_t seen = count_not_above(tail.sample, tail.sample_groups, tail.limit) - below;
  if (outermost <= beyond + seen) return true;
  return outermost <= beyond + count_equal(src, to_half(value));
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

/// Finds ranks near both ends in one pass. False when a rank turns out to lie elsewhere.
bool find_in_tails(const QuantileArgs& args, std::int64_t count) {
  Sample sample;
  sample.take(args.src);
  half* scratch = static_cast<half*>(args.scratch);
  Tail high{.sample = sample.ends[0],
            .sample_groups = sample.groups,
            .elements = count,
            .values = scratch};
  Tail low{.sample = sample.ends[1],
           .sample_groups = sample.groups,
           .elements = count,
           .values = scratch + count};
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    if (rank >= count / 2) {
      high.outer = std::max(high.outer, count - rank);
    } else {
      low.outer = std::max(low.outer, rank + 1);
    }
  }
  if (!high.choose_limit() || !low.choose_limit()) return false;
  const bool collected = low.outer == 0    ? collect<true, false>(args.src, high, low)
                         : high.outer == 0 ? collect<false, true>(args.src, high, low)
                                           : collect<true, true>(args.src, high, low);
  if (!collected) return false;

  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    const bool found = rank >= count / 2
                           ? find_in_tail(args.src, high, count - rank, 1, args.values[i])
                           : find_in_tail(args.src, low, rank + 1, -1, args.values[i]);
    if (!found) return false;
  }
  return true;
}

}  // namespace

// values[i] = the element of rank ranks[i] among src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements; finite
// method         The greatest and the least elements of sampled groups (vectors of 8) tell limits
//                beyond which the wanted elements lie, with few others. One pass collects the
//                groups with an element beyond; the ranks are selected from these. A rank that
//                turns out to be on a limit needs its equals counted, in the sample or else in a
//                pass; one that was missed, and ranks in the middle, are the reference's
// preconditions  scratch of quantile_scratch_bytes(); no over-read
// registers      8 for the elements, 8 to 16 for masks, 2 for the limits
// loop budget    512 elements, both ends: 64 loads; 56 FMAXP, 56 FMINP, 16 FCMGT, 8 UZP1, 8 AND,
//                10 ADDP/UMOV: 154 slots of the vector pipes, 77 cycles on A76 (0.15 an element);
//                a group beyond a limit: 4 cycles, and 1 for each pass that selects from it
// choices        FMAXP, so that a lane tells of eight successive elements, which one load and one
//                store collect. Modelled A76, 56x56x64 elements, both ends: 0.24 cycles an element
//                at 0.9997, 0.39 at 0.99; three standard deviations make a miss a matter of 1e-3
void quantile_f32_f16_neon_fp16(const QuantileArgs& args) {
  const std::int64_t count = args.src.pixels * args.src.channels;
  if (count <= kSmallest) {
    find_in_copy(args, count);
  } else if (!find_in_tails(args, count)) {
    quantile_f32_f16_ref(args);
  }
}

}  // namespace qpp
