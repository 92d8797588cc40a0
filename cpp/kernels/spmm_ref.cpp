// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/variants.h"

namespace qpp {

void spmm_f16_f16_f16_ref(const SpmmArgs& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    for (std::int64_t f = 0; f < args.filters; ++f) {
      float sum = 0;
      for (std::uint32_t i = args.begins[row]; i < args.begins[row + 1]; ++i) {
        const std::int64_t at = args.columns[i] * args.filters + f;
        sum += to_float(args.values[i]) * to_float(args.weights[at]);
      }
      args.sums[row * args.filters + f] = to_half(std::clamp(sum, -kLargestHalf, kLargestHalf));
    }
  }
}

}  // namespace qpp
