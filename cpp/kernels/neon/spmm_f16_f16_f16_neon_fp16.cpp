// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// The compiler would copy one zero to all vectors, a slot each; this takes none.
QPP_NEON_INLINE float16x8_t zero() {
  float16x8_t vector;
  asm("movi %0.2d, #0" : "=w"(vector));
  return vector;
}

/// A half in lane 0. The compiler would copy it to all lanes, a slot of the vector pipes.
QPP_NEON_INLINE float16x8_t load_first(const half* src) {
  float16x8_t vector;
  asm("ldr %h0, %1" : "=w"(vector) : "m"(*src));
  return vector;
}

/// 8 * kVectors filters of all pixels. `kCheck`: false where a sum overflows.
template <int kVectors, bool kCheck>
QPP_NEON_INLINE bool multiply(const SpmmArgs& given, std::int64_t filter) {
  const SpmmArgs args = given;  // a copy, which no store can change
  const std::int64_t run = args.tap_step == 1 ? args.taps : 1;
  const auto filter_bytes = static_cast<std::uint64_t>(args.filters) * sizeof(half);
  half* sums = args.sums + filter;
  float16x8_t largest = zero();
  for (std::int64_t p = 0; p < args.pixels; ++p, sums += args.filters) {
    float16x8_t sum[kVectors];
#pragma GCC unroll 8
    for (float16x8_t& vector : sum) vector = zero();
    for (std::int64_t tap = 0; tap < args.taps; tap += run) {
      const std::int64_t x = args.first + p * args.step + tap * args.tap_step;
      const std::int64_t begin = std::clamp<std::int64_t>(x, 0, args.width);
      const std::int64_t end = std::clamp<std::int64_t>(x + run, 0, args.width);
      const std::int64_t shift = ((tap - x) * args.channels * args.filters + filter) * 2;
      for (const SpmmRow* row = args.rows; row != args.rows + args.row_count; ++row) {
        const std::uint32_t from = row->outliers.begins[begin];
        const std::uint32_t* position = row->outliers.positions + from;
        const std::uint32_t* const last = row->outliers.positions + row->outliers.begins[end];
        const half* residual = row->outliers.residuals + from;
        const auto* first = reinterpret_cast<const std::byte*>(row->weights) + shift;
        for (; position != last; ++position) {
          const auto* weights = reinterpret_cast<const half*>(first + *position * filter_bytes);
          forget(weights);  // one address for all loads
          const float16x8_t value = load_first(residual++);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            sum[v] = vfmaq_laneq_f16(sum[v], load(weights + 8 * v), value, 0);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (kCheck) largest = vmaxq_f16(largest, vabsq_f16(sum[v]));  // NaN stays
      store(sums + 8 * v, sum[v]);
    }
  }
  return !kCheck || vmaxvq_f16(largest) <= static_cast<float16_t>(kMaxHalf);
}

template <bool kCheck>
QPP_NEON_INLINE bool multiply(const SpmmArgs& args) {
  bool fits = true;
  std::int64_t filter = 0;
  for (; filter + 64 <= args.filters; filter += 64) fits &= multiply<8, kCheck>(args, filter);
  for (; filter + 16 <= args.filters; filter += 16) fits &= multiply<2, kCheck>(args, filter);
  if (filter < args.filters) fits &= multiply<1, kCheck>(args, filter);
  return fits;
}

/// Whether the sum of all residuals' magnitudes is so small that no sum can overflow.
QPP_NEON_INLINE bool are_small(const SpmmArgs& args) {
  constexpr uint16x8_t kLanes{0, 1, 2, 3, 4, 5, 6, 7};
  const std::int64_t extent = (args.pixels - 1) * args.step + (args.taps - 1) * args.tap_step + 1;
  const std::int64_t begin = std::clamp<std::int64_t>(args.first, 0, args.width);
  const std::int64_t end = std::clamp<std::int64_t>(args.first + extent, 0, args.width);
  float16x8_t total = zero();
  for (const SpmmRow* row = args.rows; row != args.rows + args.row_count; ++row) {
    const std::uint32_t last = row->outliers.begins[end];
    for (std::uint32_t i = row->outliers.begins[begin]; i < last; i += 8) {
      // Elements after the last one count as zero.
      const auto left = static_cast<std::uint16_t>(std::min<std::uint32_t>(last - i, 8));
      const float16x8_t residuals =
          load_masked(row->outliers.residuals + i, vcltq_u16(kLanes, vdupq_n_u16(left)));
      total = vaddq_f16(total, vabsq_f16(residuals));
    }
  }
  const Float8 wide = to_float32(total);
  return vaddvq_f32(vaddq_f32(wide.low, wide.high)) <= 0.99F * kMaxHalf / kMaxSpmmWeight;
}

}  // namespace

// sums[p][f] = sum over rows, taps and outliers of residual * weight, spmm.h
//
// weights        fp16, (tap, c, f) at (tap * channels + c) * filters + f
// sums           fp16, [pixels][filters]
// preconditions  filters % 8 == 0, weights up to kMaxSpmmWeight; reads up to 7 residuals after
//                the last
// method         Where taps follow one another, the outliers under a row of the kernel are one run.
//                Ends of runs are unpredictable, but while the next one is fetched the vector
//                pipes have work. Sums are checked only where the residuals say that one may
//                overflow
// registers      8 for the sums, 8 for weights, 1 for the residual
// loop budget    an outlier and 64 filters: 10 loads, 8 FMLA: 5 cycles on A76, bound by the loads
//                and, where weights come from the second-level cache, by their 6.6 cycles; a pixel:
//                8 stores
bool spmm_f16_f16_f16_neon_fp16(const SpmmArgs& args) {
  return are_small(args) ? multiply<false>(args) : multiply<true>(args);
}

}  // namespace qpp
