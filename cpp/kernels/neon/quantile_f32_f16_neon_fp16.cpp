// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "kernels/neon/vectors.h"
#include "kernels/quantile_search.h"

namespace qpp {
namespace {

/// One bit per lane of two masks, those of eight lanes after each other.
QPP_NEON_INLINE uint8x16_t movemask(uint16x8_t first, uint16x8_t second) {
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

/// Halves as integers in the order of their values, except that with kPositive all negative ones
/// are only less than the others.
template <bool kPositive>
QPP_NEON_INLINE int16x8_t ordered(float16x8_t value) {
  const int16x8_t bits = vreinterpretq_s16_f16(value);
  if (kPositive) return bits;
  const uint16x8_t negative = vreinterpretq_u16_s16(vshrq_n_s16(bits, 15));
  return veorq_s16(bits, vreinterpretq_s16_u16(vshrq_n_u16(negative, 1)));
}

/// The passes over elements, as quantile_search.h lists them.
struct NeonPasses {
  static std::int64_t count_below(const half* values, std::int64_t padded, half bound) {
    const float16x8_t limit = load_broadcast(&bound);
    return count_if(values, padded, [&](float16x8_t value) { return vcltq_f16(value, limit); });
  }

  static std::int64_t count_not_above(const half* values, std::int64_t padded, half bound) {
    const float16x8_t limit = load_broadcast(&bound);
    return count_if(values, padded, [&](float16x8_t value) { return vcleq_f16(value, limit); });
  }

  static std::int64_t count_equal(const half* values, std::int64_t padded, half wanted) {
    const float16x8_t limit = load_broadcast(&wanted);
    return count_if(values, padded, [&](float16x8_t value) { return vceqq_f16(value, limit); });
  }

  static half greatest(const half* values, std::int64_t padded) {
    float16x8_t most = load(values);
    for (std::int64_t i = 8; i < padded; i += 8) most = vmaxq_f16(most, load(values + i));
    return to_half(static_cast<float>(vmaxvq_f16(most)));
  }

  QPP_NEON_INLINE static void find_ends(const half* const (&groups)[8], half* greatest,
                                        half* negated_least) {
    float16x8_t vectors[8];
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) vectors[g] = load(groups[g]);
    store(greatest, greatest_of_each(vectors));
    store(negated_least, vnegq_f16(least_of_each(vectors)));
  }

  static void count_in_groups(const half* values, std::int64_t padded, half bound,
                              std::int64_t& sum, std::int64_t& sum_of_squares) {
    const float16x8_t limit = load_broadcast(&bound);
    for (std::int64_t i = 0; i < padded; i += kGroup) {
      const std::int64_t below = vaddvq_u16(vshrq_n_u16(vcltq_f16(load(values + i), limit), 15));
      sum += below;
      sum_of_squares += below * below;
    }
  }

  template <bool kHigh, bool kLow>
  class Beyond {
   public:
    QPP_NEON_INLINE Beyond(half high, half low)
        : high_(load_broadcast(&high)), negated_low_(load_broadcast(&low)) {}

    QPP_NEON_INLINE void append(const half* block, half*& next_high, half*& next_low) const {
      const float16x8_t low = vnegq_f16(negated_low_);
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
          if (kHigh) high_masks[j] = vcgtq_f16(greatest_of_each(vectors), high_);
          if (kLow) low_masks[j] = vcltq_f16(least_of_each(vectors), low);
        }
        if (kHigh) high_marked[i] = movemask(high_masks[0], high_masks[1]);
        if (kLow) low_marked[i] = movemask(low_masks[0], low_masks[1]);
      }
      std::uint64_t high_bits = kHigh ? to_bits(high_marked) : 0;
      std::uint64_t low_bits = kLow ? to_bits(low_marked) : 0;
#ifdef __clang__  // which would find the second after the first loop, and hold the block until then
      asm volatile("" : "+r"(low_bits));
#endif
      for (; high_bits != 0; high_bits &= high_bits - 1) {
        const half* group = block + kGroup * std::countr_zero(high_bits);
        next_high = append_above(next_high, load(group), high_);
      }
      for (; low_bits != 0; low_bits &= low_bits - 1) {
        const half* group = block + kGroup * std::countr_zero(low_bits);
        next_low = append_above(next_low, vnegq_f16(load(group)), negated_low_);
      }
    }

   private:
    float16x8_t high_;
    float16x8_t negated_low_;
  };

  template <bool kPositive>
  class Between {
   public:
    QPP_NEON_INLINE Between(half lo, half hi)
        : lo_(ordered<kPositive>(load_broadcast(&lo))),
          first_(vaddq_s16(lo_, vdupq_n_s16(1))),
          width_(vqsubq_u16(
              vreinterpretq_u16_s16(vsubq_s16(ordered<kPositive>(load_broadcast(&hi)), lo_)),
              vdupq_n_u16(1))) {}

    QPP_NEON_INLINE void append(const half* block, half*& next, std::int64_t& above_lo) const {
      uint16x8_t masks[8];
      int16x8_t counts[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        uint16x8_t distances[8];
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) {
          const int16x8_t order = ordered<kPositive>(load(block + 64 * i + 8 * k));
          counts[k % 2] = vsubq_s16(counts[k % 2], vreinterpretq_s16_u16(vcgtq_s16(order, lo_)));
          distances[k] = vreinterpretq_u16_s16(vsubq_s16(order, first_));
        }
        masks[i] = vcltq_u16(least_of_each(distances), width_);
      }
      above_lo += vaddvq_s16(vaddq_s16(counts[0], counts[1]));
      const uint8x16_t marked[4] = {movemask(masks[0], masks[1]), movemask(masks[2], masks[3]),
                                    movemask(masks[4], masks[5]), movemask(masks[6], masks[7])};
      for (std::uint64_t bits = to_bits(marked); bits != 0; bits &= bits - 1) {
        store(next, load(block + kGroup * std::countr_zero(bits)));
        next += kGroup;
      }
    }

   private:
    int16x8_t lo_;
    int16x8_t first_;
    uint16x8_t width_;  // of the interval
  };
};

}  // namespace

// values[i] = the element of rank ranks[i] among src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements; finite
// method         quantile_search.h; a pass first finds the groups (vectors of 8) with a wanted
//                element, and packs those beyond a limit or stores those between two
// preconditions  scratch of quantile_scratch_bytes(); no over-read
// registers      8 for the elements, 8 to 16 for masks, 2 for the limits
// loop budget    512 elements, both ends: 64 loads; 56 FMAXP, 56 FMINP, 16 FCMGT, 8 UZP1, 8 AND,
//                10 ADDP/UMOV: 154 slots of the vector pipes, 77 cycles on A76 (0.15 an element);
//                a group beyond a limit: 6 cycles; eight elements beyond: 1 for each pass that
//                selects from them;
//                512 elements, in the middle: 64 loads; 128 FCM, 64 SUB, 64 AND, 56 UMAXP, 26 as
//                above: 338 slots, 169 cycles (0.33 an element)
// choices        FMAXP, so that a lane represents eight consecutive elements, which one load, one
//                table look-up and one store collect. Storing whole groups takes less where they
//                stay in the caches, but they are six times as much to write and to select from.
//                Modelled A76, both ends: 56x56x64 elements 0.25 cycles an element at 0.9997, 0.40
//                at 0.99; 224x224x64 0.49 and 0.56
void quantile_f32_f16_neon_fp16(const QuantileArgs& args) { find_quantiles<NeonPasses>(args); }

}  // namespace qpp
