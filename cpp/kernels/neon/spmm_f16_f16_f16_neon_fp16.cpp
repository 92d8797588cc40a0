// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>

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

/// 8 * kVectors filters of all rows.
template <int kVectors, bool kCut>
QPP_NEON_INLINE void multiply(const SpmmArgs& args, std::int64_t filter) {
  const half* weights = args.weights + filter;
  const auto filters = static_cast<std::uint32_t>(args.filters);
  const std::uint32_t* columns = args.columns;
  const half* values = args.values;
  half* sums = args.sums + filter;
  for (std::int64_t row = 0; row < args.rows; ++row, sums += args.filters) {
    const std::uint32_t* const end = args.columns + args.begins[row + 1];
    float16x8_t sum[kVectors];
#pragma GCC unroll 8
    for (float16x8_t& vector : sum) vector = zero();
    for (; columns != end; ++columns, ++values) {
      const half* column = weights + std::uint64_t{*columns} * filters;
      const auto value = std::bit_cast<float16_t>(values->bits);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[v] = vfmaq_n_f16(sum[v], load(column + 8 * v), value);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (kCut) {
        const float16x8_t largest = vdupq_n_f16(static_cast<float16_t>(kLargestHalf));
        sum[v] = vminnmq_f16(vmaxnmq_f16(sum[v], vnegq_f16(largest)), largest);
      }
      store(sums + 8 * v, sum[v]);
    }
  }
}

template <bool kCut>
QPP_NEON_INLINE void multiply(const SpmmArgs& args) {
  std::int64_t filter = 0;
  for (; filter + 64 <= args.filters; filter += 64) multiply<8, kCut>(args, filter);
  for (; filter + 16 <= args.filters; filter += 16) multiply<2, kCut>(args, filter);
  if (filter < args.filters) multiply<1, kCut>(args, filter);
}

/// Whether the sum of all values' magnitudes is so small that no sum can overflow.
QPP_NEON_INLINE bool are_small(const SpmmArgs& args) {
  float16x8_t total = vdupq_n_f16(0);
  std::uint32_t i = args.begins[0];
  const std::uint32_t end = args.begins[args.rows];
  for (; i + 8 <= end; i += 8) total = vaddq_f16(total, vabsq_f16(load(args.values + i)));
  const float32x4_t lanes = vaddq_f32(widen(total).low, widen(total).high);
  float sum = vaddvq_f32(lanes);
  for (; i < end; ++i) sum += std::abs(to_float(args.values[i]));
  return sum <= 0.99F * kLargestHalf / kLargestSpmmWeight;
}

}  // namespace

// sums[p][f] = sum over i in begins[p] .. begins[p + 1] of values[i] * weights[columns[i]][f]
//
// weights        fp16, (column, f) at column * filters + f
// sums           fp16, [rows][filters]
// preconditions  filters % 8 == 0, weights up to kLargestSpmmWeight; no over-read
// method         Sums are cut to finite halves only where the values say that one may overflow
// registers      8 for the sums, 8 for weights, 1 for the value
// loop budget    an entry and 64 filters: 10 loads, 8 FMLA: 5 cycles on A76, bound by the loads;
//                a row: 8 stores, and often a mispredicted end of its loop
void spmm_f16_f16_f16_neon_fp16(const SpmmArgs& args) {
  if (are_small(args)) {
    multiply<false>(args);
  } else {
    multiply<true>(args);
  }
}

}  // namespace qpp
