// SPDX-License-Identifier: Apache-2.0
#include "kernels/resize.h"

#include "kernels/variants.h"

namespace qpp {
namespace {

half between(half a, half b, half weight) {
  const double difference = to_float(to_half(to_float(b) - to_float(a)));
  // The product is exact in double, and the rounding error of its sum is too small to matter.
  const double value = difference * to_float(weight) + to_float(a);
  return to_half(static_cast<float>(value));
}

}  // namespace

void resize_f16_f16_ref(const ResizeArgs& args) {
  const auto* top = static_cast<const half*>(args.top);
  const auto* bottom = static_cast<const half*>(args.bottom);
  for (std::int64_t r = 0; r < args.row_count; ++r) {
    for (std::int64_t x = 0; x < args.pixel_count; ++x) {
      const ResizeTap& column = args.columns[x];
      const std::int64_t first = column.first * args.channels;
      const std::int64_t second = column.second * args.channels;
      for (std::int64_t c = 0; c < args.channels; ++c) {
        const half upper = between(top[first + c], top[second + c], column.weight);
        const half lower = between(bottom[first + c], bottom[second + c], column.weight);
        static_cast<half*>(args.dst)[(r * args.pixel_count + x) * args.channels + c] =
            between(upper, lower, args.rows[r].weight);
      }
    }
  }
}

void resize_qai8_qai8_ref(const ResizeArgs& args) {
  const auto* top = static_cast<const std::int8_t*>(args.top);
  const auto* bottom = static_cast<const std::int8_t*>(args.bottom);
  auto* dst = static_cast<std::int8_t*>(args.dst);
  for (std::int64_t r = 0; r < args.row_count; ++r) {
    for (std::int64_t x = 0; x < args.pixel_count; ++x) {
      const std::int64_t first = args.columns[x].first * args.channels;
      const std::int64_t second = args.columns[x].second * args.channels;
      const std::uint8_t* weights = args.corners[r] + x * kCorners;
      for (std::int64_t c = 0; c < args.channels; ++c) {
        const int sum = top[first + c] * weights[0] + top[second + c] * weights[1] +
                        bottom[first + c] * weights[2] + bottom[second + c] * weights[3];
        *dst++ = static_cast<std::int8_t>((sum + 128) >> 8);
      }
    }
  }
}

}  // namespace qpp
