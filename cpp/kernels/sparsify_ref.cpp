// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/variants.h"

namespace qpp {
namespace {

template <typename Src>
std::uint32_t sparsify_ref(const SparsifyArgs& args) {
  std::uint32_t saturated = 0;
  OutlierAppender appender(args.row, args.x);
  const auto* src = static_cast<const Src*>(args.src);
  for (std::int64_t p = 0; p < args.pixels; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      const std::int64_t i = p * args.channels + c;
      const std::int32_t level = sparsify_level(args, src[i]);
      const std::int32_t dense = std::clamp(level, args.qmin, args.qmax);
      args.dst[i] = static_cast<std::int8_t>(dense);
      appender.append(args.x * args.channels + i, level - dense);
      saturated += is_saturated(args, level);
    }
    appender.end_pixel(args.x + p);
  }
  return saturated;
}

}  // namespace

std::uint32_t sparsify_qai8_qai16_ref(const SparsifyArgs& args) {
  return sparsify_ref<std::int16_t>(args);
}
std::uint32_t sparsify_qai8_f16_ref(const SparsifyArgs& args) { return sparsify_ref<half>(args); }

void densify_f16_qai8_ref(const DensifyArgs& args) {
  const auto value = [&](std::int32_t steps) {
    return to_half(static_cast<float>(steps) / args.steps_per_unit);
  };
  for (std::int64_t i = 0; i < args.pixels * args.channels; ++i) {
    args.dst[i] = value(args.src[i] - args.zero_point);
  }
  for (std::uint32_t i = args.row.begins[args.x]; i < args.row.begins[args.x + args.pixels]; ++i) {
    const std::int64_t at = args.row.positions[i] - args.x * args.channels;
    args.dst[at] = value(args.src[at] - args.zero_point + steps_of_residual(args.row.residuals[i]));
  }
}

}  // namespace qpp
