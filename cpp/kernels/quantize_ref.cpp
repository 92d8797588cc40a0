// SPDX-License-Identifier: Apache-2.0
#include "kernels/variants.h"

namespace qpp {

void quantize_qai8_f16_ref(const QuantizeArgs& args) {
  for (std::int64_t i = 0; i < args.count; ++i) {
    float level = to_float(args.src[i]) * args.inverse_scale;
    level = level < args.lo ? args.lo : level;
    level = level < args.hi ? level : args.hi;  // NaN becomes hi
    args.dst[i] = round_to_int8(level, args.zero_point);
  }
}

void dequantize_f16_qai8_ref(const DequantizeArgs& args) {
  for (std::int64_t i = 0; i < args.count; ++i) {
    args.dst[i] = to_half(static_cast<float>(args.src[i] - args.zero_point) * args.scale);
  }
}

}  // namespace qpp
