// SPDX-License-Identifier: Apache-2.0
#include "kernels/variants.h"
#include "kernels/x86/vectors.h"

namespace qpp {
namespace {

/// Averages of pairs, summed as described in statistics.h: in float over a block, and blocks in
/// double.
class BlockSums {
 public:
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

  __m256 block_ = _mm256_setzero_ps();
  __m256d totals_[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  std::int64_t pairs_ = 0;
};

/// The sum over consecutive elements, whose number is a multiple of 8.
double sum_dense(const half* src, std::int64_t elements) {
  BlockSums sums;
  std::int64_t i = 0;
  for (; i + 16 <= elements; i += 16)
    sums.add_pair(load_widened(src + i), load_widened(src + i + 8));
  if (i < elements) sums.add_pair(load_widened(src + i), _mm256_setzero_ps());
  return sums.total();
}

/// The sum over the first channels of every pixel; a pair may be of two pixels.
double sum_pixels(const StatisticsSource& src) {
  const __m128i tail = _mm256_castsi256_si128(first_lanes(src.channels % 8));
  BlockSums sums;
  __m256 first = _mm256_setzero_ps();
  bool has_first = false;
  const auto add_vector = [&](__m256 vector) QPP_X86_INLINE_LAMBDA {
    if (has_first) sums.add_pair(first, vector);
    first = vector;
    has_first = !has_first;
  };
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    const half* pixel = src.data + p * src.stride;
    std::int64_t c = 0;
    for (; c + 8 <= src.channels; c += 8) add_vector(load_widened(pixel + c));
    if (c < src.channels) {
      const __m128i last = _mm256_castsi256_si128(load_twice(pixel + c));
      add_vector(_mm256_cvtph_ps(_mm_and_si128(last, tail)));
    }
  }
  if (has_first) add_vector(_mm256_setzero_ps());
  return sums.total();
}

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
void mean_f32_f16_x86_avx2(const MeanArgs& args) {
  const StatisticsSource& src = args.src;
  const std::int64_t elements = src.pixels * src.channels;
  const double sum = src.channels == src.stride ? sum_dense(src.data, elements) : sum_pixels(src);
  *args.mean = static_cast<float>(2 * sum / static_cast<double>(elements));
}

}  // namespace qpp
