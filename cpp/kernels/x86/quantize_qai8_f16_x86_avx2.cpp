// SPDX-License-Identifier: Apache-2.0
#include "kernels/variants.h"
#include "kernels/x86/vectors.h"

namespace qpp {

// dst[i] = round_half_even(clamp(src[i] * inverse_scale, lo, hi)) + zero_point
//
// src            fp16
// dst            int8
// preconditions  count % 8 == 0; no over-read
// registers      5 for the constants, 4 for the levels
// loop budget    32 elements: 4 each of VCVTPH2PS, VMULPS, VMAXPS, VMINPS, VADDPS; 7 to pack, one
//                VPADDB and one store
void quantize_qai8_f16_x86_avx2(const QuantizeArgs& args) {
  const __m256 inverse_scale = _mm256_set1_ps(args.inverse_scale);
  const __m256 lo = _mm256_set1_ps(args.lo);
  const __m256 hi = _mm256_set1_ps(args.hi);
  const __m256 magic = _mm256_set1_ps(kRoundingMagic);
  // The level in each lane's lowest byte.
  const auto quantize = [&](std::int64_t i) QPP_X86_INLINE_LAMBDA {
    const __m256 level = _mm256_mul_ps(load_as_float32(args.src + i), inverse_scale);
    // Of NaN, both give the second operand.
    const __m256 clamped = _mm256_min_ps(_mm256_max_ps(lo, level), hi);
    return _mm256_castps_si256(_mm256_add_ps(clamped, magic));
  };
  const __m256i zero_point = _mm256_set1_epi8(static_cast<char>(args.zero_point));
  const __m256i low_byte = _mm256_set1_epi32(0xff);
  const auto quantize_two = [&](std::int64_t i) QPP_X86_INLINE_LAMBDA {
    return _mm256_packus_epi32(_mm256_and_si256(quantize(i), low_byte),
                               _mm256_and_si256(quantize(i + 8), low_byte));
  };
  std::int64_t i = 0;
  for (; i + 32 <= args.count; i += 32) {
    // Packing keeps to the halves of the registers, which leaves groups of four bytes to be sorted.
    const __m256i bytes = _mm256_packus_epi16(quantize_two(i), quantize_two(i + 16));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i sorted = _mm256_permutevar8x32_epi32(bytes, order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.dst + i),
                        _mm256_add_epi8(sorted, zero_point));
  }
  for (; i < args.count; i += 8) {
    store_low_bytes(_mm256_add_epi8(quantize(i), zero_point), args.dst + i);
  }
}

}  // namespace qpp
