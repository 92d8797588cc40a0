// SPDX-License-Identifier: Apache-2.0
#include "kernels/mean_of_pairs.h"
#include "kernels/x86/vectors.h"

namespace qpp {
namespace {

/// Averages of pairs, summed as described in statistics.h: in float over a block, and blocks in
/// double.
class BlockSums {
 public:
  using Vector = __m256;

  QPP_X86_INLINE explicit BlockSums(std::int64_t tail)
      : tail_(_mm256_castsi256_si128(first_lanes(tail))) {}

  QPP_X86_INLINE static __m256 zero() { return _mm256_setzero_ps(); }
  QPP_X86_INLINE static __m256 load(const half* src) { return load_as_float32(src); }
  QPP_X86_INLINE __m256 load_tail(const half* src) const {
    const __m128i last = _mm256_castsi256_si128(load_twice(src));
    return _mm256_cvtph_ps(_mm_and_si128(last, tail_));
  }
  QPP_X86_INLINE void add_pair(__m256 first, __m256 second) {
    const __m256 one_half = _mm256_set1_ps(0.5F);
    const __m256 rounded = _mm256_cvtph_ps(narrow(_mm256_mul_ps(first, one_half)));
    const __m256 average = _mm256_cvtph_ps(narrow(_mm256_fmadd_ps(second, one_half, rounded)));
    block_ = _mm256_add_ps(block_, average);
    if (++pairs_ == kMeanBlock) flush();
  }
  QPP_X86_INLINE double total() {
    flush();
    alignas(32) double lanes[8];
    _mm256_store_pd(lanes, totals_[0]);
    _mm256_store_pd(lanes + 4, totals_[1]);
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    return sum;
  }

 private:
  QPP_X86_INLINE void flush() {
    totals_[0] = _mm256_add_pd(totals_[0], _mm256_cvtps_pd(_mm256_castps256_ps128(block_)));
    totals_[1] = _mm256_add_pd(totals_[1], _mm256_cvtps_pd(_mm256_extractf128_ps(block_, 1)));
    block_ = _mm256_setzero_ps();
    pairs_ = 0;
  }

  __m128i tail_;
  __m256 block_ = _mm256_setzero_ps();
  __m256d totals_[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  std::int64_t pairs_ = 0;
};

}  // namespace

// mean = sum over p < pixels, c < channels of src[p * stride + c] / (pixels * channels)
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole vectors of 8, padding included, which does not count
// registers      1 for the eight float sums of a block, 2 for the eight double totals
// loop budget    16 elements: 2 VCVTPH2PS of elements, VMULPS, VFMADD, VADDPS, and 2 each of
//                VCVTPS2PH and VCVTPH2PS that round to fp16
//
// The steps and their order are the contract's; a lane without an element adds zero. The sum of two
// halves is rounded twice, to float and to fp16, which is the same as once, since a float has more
// than twice as many bits.
void mean_f32_f16_x86_avx2(const MeanArgs& args) { mean_of_pairs<BlockSums>(args); }

}  // namespace qpp
