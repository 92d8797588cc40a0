// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "kernels/quantile_search.h"
#include "kernels/x86/vectors.h"

namespace qpp {
namespace {

QPP_X86_INLINE __m256i broadcast_ordered(half value) {
  return _mm256_set1_epi16(to_ordered(value));
}

QPP_X86_INLINE __m128i load_ordered(const half* group) {
  const __m256i halves =
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(group)));
  return _mm256_castsi256_si128(to_ordered(halves));
}

/// The sum of sixteen lanes.
QPP_X86_INLINE std::int64_t sum_lanes(__m256i values) {
  const __m256i pairs = _mm256_madd_epi16(values, _mm256_set1_epi16(1));
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return _mm_cvtsi128_si32(sum);
}

/// How many of values[0 .. padded) `test` gives a mask for; `padded` is a multiple of 64.
template <typename Test>
QPP_X86_INLINE std::int64_t count_if(const half* values, std::int64_t padded, const Test& test) {
  constexpr std::int64_t kPart = std::int64_t{1} << 17;  // that 16 bits of four counters can count
  std::int64_t total = 0;
  for (std::int64_t first = 0; first < padded; first += kPart) {
    const std::int64_t end = std::min(first + kPart, padded);
    __m256i counts[4] = {};
    for (std::int64_t i = first; i < end; i += 64) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        counts[k] = _mm256_sub_epi16(counts[k], test(to_ordered(load_halves(values + i + 16 * k))));
      }
    }
#pragma GCC unroll 4
    for (const __m256i count : counts) total += sum_lanes(count);
  }
  return total;
}

/// One bit per lane of two masks.
QPP_X86_INLINE std::uint32_t to_bits(__m256i first, __m256i second) {
  const __m256i packed = _mm256_packs_epi16(first, second);  // keeps to the halves of registers
  return static_cast<std::uint32_t>(
      _mm256_movemask_epi8(_mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0))));
}

/// Appends the elements whose bits are set, with `sign` changed.
QPP_X86_INLINE half* append_marked(half* next, const half* elements, std::uint32_t bits,
                                   unsigned sign) {
  for (; bits != 0; bits &= bits - 1) {
    const half element = elements[std::countr_zero(bits)];
    *next++ = half{static_cast<std::uint16_t>(element.bits ^ sign)};
  }
  return next;
}

/// The passes over elements, as quantile_search.h lists them.
struct Avx2Passes {
  static std::int64_t count_below(const half* values, std::int64_t padded, half bound) {
    const __m256i limit = broadcast_ordered(bound);
    return count_if(values, padded, [&](__m256i value) QPP_X86_INLINE_LAMBDA {
      return _mm256_cmpgt_epi16(limit, value);
    });
  }

  static std::int64_t count_not_above(const half* values, std::int64_t padded, half bound) {
    const __m256i limit = broadcast_ordered(bound);
    const std::int64_t above = count_if(values, padded, [&](__m256i value) QPP_X86_INLINE_LAMBDA {
      return _mm256_cmpgt_epi16(value, limit);
    });
    return padded - above;
  }

  static std::int64_t count_equal(const half* values, std::int64_t padded, half wanted) {
    const __m256i limit = broadcast_ordered(wanted);
    return count_if(values, padded, [&](__m256i value) QPP_X86_INLINE_LAMBDA {
      return _mm256_cmpeq_epi16(limit, value);
    });
  }

  static half greatest(const half* values, std::int64_t padded) {
    std::int16_t most = to_ordered(values[0]);
    for (std::int64_t i = 1; i < padded; ++i) most = std::max(most, to_ordered(values[i]));
    return from_ordered(most);
  }

  QPP_X86_INLINE static void find_ends(const half* const (&groups)[8], half* greatest,
                                       half* negated_least) {
    // VPHMINPOSUW finds the least unsigned lane: flipping the sign makes an ordered half unsigned,
    // and flipping all other bits the greatest the least.
    const __m128i sign = _mm_set1_epi16(INT16_MIN);
    const __m128i others = _mm_set1_epi16(INT16_MAX);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const __m128i ordered = load_ordered(groups[g]);
      const int least = _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(ordered, sign)));
      const int most = _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(ordered, others)));
      greatest[g] = from_ordered(static_cast<std::int16_t>(most ^ INT16_MAX));
      negated_least[g] =
          from_ordered(static_cast<std::int16_t>(-(static_cast<std::int16_t>(least ^ 0x8000))));
    }
  }

  static void count_in_groups(const half* values, std::int64_t padded, half bound,
                              std::int64_t& sum, std::int64_t& sum_of_squares) {
    const __m128i limit = _mm256_castsi256_si128(broadcast_ordered(bound));
    for (std::int64_t i = 0; i < padded; i += 8) {
      const __m128i below = _mm_cmpgt_epi16(limit, load_ordered(values + i));
      const std::int64_t count = std::popcount(static_cast<unsigned>(_mm_movemask_epi8(below))) / 2;
      sum += count;
      sum_of_squares += count * count;
    }
  }

  template <bool kHigh, bool kLow>
  class Beyond {
   public:
    QPP_X86_INLINE Beyond(half high, half low)
        : high_(broadcast_ordered(high)),
          low_(_mm256_sub_epi16(_mm256_setzero_si256(), broadcast_ordered(low))) {}

    QPP_X86_INLINE void append(const half* block, half*& next_high, half*& next_low) const {
      for (std::int64_t i = 0; i < kBlock; i += 32) {
        const __m256i first = to_ordered(load_halves(block + i));
        const __m256i second = to_ordered(load_halves(block + i + 16));
        if (kHigh) {
          const std::uint32_t bits = to_bits(_mm256_cmpgt_epi16(first, high_),  //
                                             _mm256_cmpgt_epi16(second, high_));
          next_high = append_marked(next_high, block + i, bits, 0);
        }
        if (kLow) {
          const std::uint32_t bits = to_bits(_mm256_cmpgt_epi16(low_, first),  //
                                             _mm256_cmpgt_epi16(low_, second));
          next_low = append_marked(next_low, block + i, bits, 0x8000);
        }
      }
    }

   private:
    __m256i high_;
    __m256i low_;
  };

  template <bool kPositive>
  class Between {
   public:
    QPP_X86_INLINE Between(half lo, half hi)
        : lo_(broadcast_ordered(lo)), hi_(broadcast_ordered(hi)) {}

    QPP_X86_INLINE void append(const half* block, half*& next, std::int64_t& above_lo) const {
      __m256i counts = _mm256_setzero_si256();
      for (std::int64_t i = 0; i < kBlock; i += 32) {
        __m256i between[2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
          const __m256i value = to_ordered(load_halves(block + i + 16 * k));
          const __m256i above = _mm256_cmpgt_epi16(value, lo_);
          counts = _mm256_sub_epi16(counts, above);
          between[k] = _mm256_and_si256(above, _mm256_cmpgt_epi16(hi_, value));
        }
        next = append_marked(next, block + i, to_bits(between[0], between[1]), 0);
      }
      above_lo += sum_lanes(counts);
    }

   private:
    __m256i lo_;
    __m256i hi_;
  };
};

}  // namespace

// values[i] = the element of rank ranks[i] among src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements; finite
// method         quantile_search.h; halves are compared as integers, 32 to a mask whose bits give
//                the elements to collect
// preconditions  scratch of quantile_scratch_bytes(); reads whole vectors of 8, padding included
// registers      2 for the limits, 2 for the elements, 4 for masks
// loop budget    32 elements, one end: 2 loads, 2 VPAND, 2 VPSIGNW, 2 VPCMPGTW, VPACKSSWB, VPERMQ,
//                VPMOVMSKB: 9 vector operations, 3 to 4 cycles (0.1 an element); an element beyond:
//                5, and a mispredicted branch for the first of 32
void quantile_f32_f16_x86_avx2(const QuantileArgs& args) { find_quantiles<Avx2Passes>(args); }

}  // namespace qpp
