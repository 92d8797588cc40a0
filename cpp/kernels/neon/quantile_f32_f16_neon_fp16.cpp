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

constexpr std::int64_t kBlock = 64;
constexpr std::int64_t kSample = 1024;
constexpr half kInfinity{0x7c00};

/// The half at a position in the order of values: 0x03ff is -infinity, 0xfc00 is infinity.
half from_order(std::uint32_t order) {
  return half{static_cast<std::uint16_t>((order & 0x8000U) != 0 ? order & 0x7fffU : ~order)};
}

/// Adds the number of set lanes of eight masks to four totals.
QPP_NEON_INLINE uint32x4_t add_set_lanes(uint32x4_t totals, const uint16x8_t (&masks)[8]) {
  uint16x8_t sum = masks[0];
#pragma GCC unroll 7
  for (int i = 1; i < 8; ++i) sum = vaddq_u16(sum, masks[i]);
  return vpadalq_u16(totals, vreinterpretq_u16_s16(vnegq_s16(vreinterpretq_s16_u16(sum))));
}

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

/// Calls visit(block) for all elements, 64 at a time. Elements that do not lie together are copied;
/// `fill` completes the last block.
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

/// The element of rank `rank` among values[0 .. count), found by bisection over all halves: sixteen
/// passes without an unpredictable branch. Up to 63 values more are overwritten.
half select(half* values, std::int64_t count, std::int64_t rank) {
  const std::int64_t padded = round_up(count, kBlock);
  std::fill_n(values + count, padded - count, kInfinity);
  std::uint32_t first = 0x03ff;  // the orders between which the element lies
  std::uint32_t last = 0xfc00;
  while (first < last) {
    const std::uint32_t middle = (first + last) / 2;
    const half bound = from_order(middle);
    uint32x4_t totals = vdupq_n_u32(0);
    for (std::int64_t i = 0; i < padded; i += kBlock) {
      uint16x8_t masks[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k)
        masks[k] = vcleq_f16(load(values + i + 8 * k), load_broadcast(&bound));
      totals = add_set_lanes(totals, masks);
    }
    if (static_cast<std::int64_t>(vaddvq_u32(totals)) > rank) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return from_order(first);
}

/// kSample elements, evenly spread over pixels and channels.
void take_sample(const StatisticsSource& src, half* sample) {
  std::int64_t step = src.pixels * src.channels / kSample;
  while (std::gcd(step, src.channels) != 1) --step;  // or some channels would never be met
  std::int64_t p = 0;
  std::int64_t c = 0;
  for (std::int64_t i = 0; i < kSample; ++i) {
    sample[i] = src.data[p * src.stride + c];
    p += step / src.channels;
    c += step % src.channels;
    if (c >= src.channels) {
      c -= src.channels;
      ++p;
    }
  }
}

/// How many of the sample's outermost elements to leave outside, so that the `outer` outermost of
/// all elements are almost surely there too: their expected number and four standard deviations
/// more.
std::int64_t sample_cut(std::int64_t outer, std::int64_t count) {
  const double expected = static_cast<double>(kSample * outer) / static_cast<double>(count);
  return static_cast<std::int64_t>(expected + 4 * std::sqrt(expected)) + 4;
}

/// A part of the elements: those beyond a limit, copied together.
struct Tail {
  half* values;
  half limit{};
  std::int64_t count = 0;
};

/// Collects the elements below low.limit, stored downwards, and those above high.limit. A side that
/// is not wanted costs nothing.
template <bool kLow, bool kHigh>
void collect_tails(const StatisticsSource& src, Tail& low, Tail& high) {
  const float16x8_t low_limit = load_broadcast(&low.limit);
  const float16x8_t high_limit = load_broadcast(&high.limit);
  for_each_block(src, kLow ? low.limit : high.limit, [&](const half* block) {
    // Most blocks hold no such element, which their least and greatest tell.
    float16x8_t least = load(block);
    float16x8_t greatest = least;
#pragma GCC unroll 7
    for (int i = 1; i < 8; ++i) {
      if (kLow) least = vminq_f16(least, load(block + 8 * i));
      if (kHigh) greatest = vmaxq_f16(greatest, load(block + 8 * i));
    }
    uint16x8_t any = vdupq_n_u16(0);
    if (kLow) any = vcltq_f16(least, low_limit);
    if (kHigh) any = vorrq_u16(any, vcgtq_f16(greatest, high_limit));
    if (vget_lane_u64(vreinterpret_u64_u8(vmovn_u16(any)), 0) == 0) return;
    uint16x8_t masks[8];
    if (kLow) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) masks[i] = vcltq_f16(load(block + 8 * i), low_limit);
      for (std::uint64_t bits = to_bits(masks); bits != 0; bits &= bits - 1) {
        *--low.values = block[std::countr_zero(bits)];
        ++low.count;
      }
    }
    if (kHigh) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) masks[i] = vcgtq_f16(load(block + 8 * i), high_limit);
      for (std::uint64_t bits = to_bits(masks); bits != 0; bits &= bits - 1) {
        high.values[high.count++] = block[std::countr_zero(bits)];
      }
    }
  });
}

std::int64_t count_equal(const StatisticsSource& src, half value) {
  const float16x8_t wanted = load_broadcast(&value);
  uint32x4_t totals = vdupq_n_u32(0);
  for_each_block(src, kInfinity, [&](const half* block) {
    uint16x8_t masks[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) masks[i] = vceqq_f16(load(block + 8 * i), wanted);
    totals = add_set_lanes(totals, masks);
  });
  return vaddvq_u32(totals);
}

/// Finds all ranks of a direct copy of the elements.
void find_in_copy(const QuantileArgs& args, std::int64_t count) {
  half* copy = static_cast<half*>(args.scratch);
  half* end = copy;
  for (std::int64_t p = 0; p < args.src.pixels; ++p) {
    end = std::copy_n(args.src.data + p * args.src.stride, args.src.channels, end);
  }
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    args.values[i] = to_float(select(copy, count, args.ranks[i]));
  }
}

/// Finds ranks near both ends in one pass. False when a rank turns out to lie elsewhere.
bool find_in_tails(const QuantileArgs& args, std::int64_t count) {
  std::int64_t low_outer = 0;  // the innermost rank of each half, counted from its end
  std::int64_t high_outer = 0;
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    if (rank < count / 2) low_outer = std::max(low_outer, rank + 1);
    if (rank >= count / 2) high_outer = std::max(high_outer, count - rank);
  }
  const std::int64_t low_cut = sample_cut(low_outer, count);
  const std::int64_t high_cut = sample_cut(high_outer, count);
  if (std::max(low_cut, high_cut) > kSample / 8) return false;

  half* scratch = static_cast<half*>(args.scratch);
  take_sample(args.src, scratch);
  Tail low{.values = scratch + count + kBlock};
  Tail high{.values = scratch};
  if (low_outer > 0) low.limit = select(scratch, kSample, low_cut);
  if (high_outer > 0) high.limit = select(scratch, kSample, kSample - 1 - high_cut);
  if (low_outer == 0) {
    collect_tails<false, true>(args.src, low, high);
  } else if (high_outer == 0) {
    collect_tails<true, false>(args.src, low, high);
  } else {
    collect_tails<true, true>(args.src, low, high);
  }

  std::int64_t high_equal = -1;  // counted when needed
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    if (args.ranks[i] < count / 2) continue;
    const std::int64_t rank = args.ranks[i] - (count - high.count);
    if (rank < 0 && high_equal < 0) high_equal = count_equal(args.src, high.limit);
    if (rank < 0 && rank + high_equal < 0) return false;
    args.values[i] = to_float(rank < 0 ? high.limit : select(high.values, high.count, rank));
  }
  std::copy_n(low.values, low.count, scratch);  // where the filling of select() does no harm
  std::int64_t low_equal = -1;
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    const std::int64_t rank = args.ranks[i];
    if (rank >= count / 2) continue;
    if (rank >= low.count && low_equal < 0) low_equal = count_equal(args.src, low.limit);
    if (rank >= low.count + std::max<std::int64_t>(low_equal, 0)) return false;
    args.values[i] = to_float(rank >= low.count ? low.limit : select(scratch, low.count, rank));
  }
  return true;
}

}  // namespace

// values[i] = the element of rank ranks[i] among src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements; finite
// method         A sample tells limits beyond which the wanted elements lie, with few others. One
// pass
//                collects what lies beyond; the ranks are selected from that. A rank that turns out
//                to be on the limit needs a pass to count its equals; one that lies elsewhere, and
//                ranks in the middle, are the reference's.
// preconditions  scratch of quantile_scratch_bytes(); no over-read
// registers      8 or 16 for the least, the greatest or the masks of a block, 2 for the limits
// loop budget    64 elements with nothing beyond one limit: 8 loads, 7 FMAX, 4 slots to test: 5.5
//                cycles on A76; with something beyond: 30 slots and 7 cycles for each such element
// choices        modelled A76, 56x56x64 elements, one rank at 0.9997: 0.40 cycles an element, of
// which
//                the sample takes 0.05; four standard deviations make a miss a matter of 1e-4
void quantile_f32_f16_neon_fp16(const QuantileArgs& args) {
  const std::int64_t count = args.src.pixels * args.src.channels;
  if (count <= 4 * kSample) {
    find_in_copy(args, count);
  } else if (!find_in_tails(args, count)) {
    quantile_f32_f16_ref(args);
  }
}

}  // namespace qpp
