// SPDX-License-Identifier: Apache-2.0
//
// Small helpers of the AVX2 kernels. All are inlined by force: a shared inline function that stayed
// a call could be linked in this folder's version, for AVX2, where the CPU has none.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/half.h"

#define QPP_X86_INLINE [[gnu::always_inline]] inline
#define QPP_X86_INLINE_LAMBDA __attribute__((always_inline))

namespace qpp {

/// Sixteen halves, as their bits.
QPP_X86_INLINE __m256i load_halves(const half* src) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
}

/// Eight halves, twice.
QPP_X86_INLINE __m256i load_twice(const half* src) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
}

/// All ones in the lanes of the first `count` of eight halves, twice.
QPP_X86_INLINE __m256i first_lanes(std::int64_t count) {
  const __m256i lanes = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi16(_mm256_set1_epi16(static_cast<std::int16_t>(count)), lanes);
}

/// Eight halves, as floats.
QPP_X86_INLINE __m256 load_as_float32(const half* src) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
}

QPP_X86_INLINE __m128i narrow(__m256 values) {
  return _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
}

QPP_X86_INLINE void store_low_bytes(__m256i values, std::int8_t* dst) {
  const __m256i bytes = _mm256_and_si256(values, _mm256_set1_epi32(0xff));
  const __m128i shorts =
      _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), _mm_packus_epi16(shorts, shorts));
}

/// Halves as 16-bit integers in the order of their values, both zeros as 0. NaN is beyond
/// infinity.
QPP_X86_INLINE __m256i to_ordered(__m256i halves) {
  return _mm256_sign_epi16(_mm256_and_si256(halves, _mm256_set1_epi16(0x7fff)), halves);
}

/// The same for one half, and back.
QPP_X86_INLINE std::int16_t to_ordered(half value) {
  const auto magnitude = static_cast<std::int16_t>(value.bits & 0x7fffU);
  return static_cast<std::int16_t>((value.bits & 0x8000U) != 0 ? -magnitude : magnitude);
}

QPP_X86_INLINE half from_ordered(std::int16_t ordered) {
  return half{static_cast<std::uint16_t>(ordered < 0 ? 0x8000 - ordered : ordered)};
}

}  // namespace qpp
