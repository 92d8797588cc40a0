// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/variants.h"

namespace qpp {
namespace {

float sum(const SpmmArgs& args, std::int64_t p, std::int64_t f) {
  float total = 0;
  for (std::int64_t tap = 0; tap < args.taps; ++tap) {
    const std::int64_t x = args.first + p * args.step + tap * args.tap_step;
    if (x < 0 || x >= args.width) continue;
    for (std::int64_t r = 0; r < args.row_count; ++r) {
      const auto& [outliers, weights] = args.rows[r];
      for (std::uint32_t i = outliers.begins[x]; i < outliers.begins[x + 1]; ++i) {
        const std::int64_t channel = outliers.positions[i] - x * args.channels;
        const half weight = weights[(tap * args.channels + channel) * args.filters + f];
        total += to_float(outliers.residuals[i]) * to_float(weight);
      }
    }
  }
  return total;
}

}  // namespace

void sum_outliers(const SpmmArgs& args, float* sums) {
  for (std::int64_t p = 0; p < args.pixels; ++p) {
    for (std::int64_t f = 0; f < args.filters; ++f) sums[p * args.filters + f] = sum(args, p, f);
  }
}

bool spmm_f16_f16_f16_ref(const SpmmArgs& args) {
  for (std::int64_t p = 0; p < args.pixels; ++p) {
    for (std::int64_t f = 0; f < args.filters; ++f) {
      const float total = sum(args, p, f);
      if (!(std::abs(total) <= kMaxHalf)) return false;
      args.sums[p * args.filters + f] = to_half(total);
    }
  }
  return true;
}

}  // namespace qpp
