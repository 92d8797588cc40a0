// SPDX-License-Identifier: Apache-2.0
#include "ops/layout.h"

#include <atomic>

#include "base/half.h"

namespace qpp {

bool import_nchw(const float* src, const TensorView& dst, ThreadPool& pool) {
  const Shape shape = dst.shape;
  const std::int64_t stride = shape.stride();
  const std::int64_t plane = shape.height * shape.width;
  std::atomic<bool> finite{true};
  pool.parallel_for(shape.pixels(), [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
    unsigned special = 0;
    for (std::int64_t p = begin; p < end; ++p) {
      const float* pixel = src + p / plane * shape.channels * plane + p % plane;
      half* out = dst.as<half>() + p * stride;
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        out[c] = to_half(pixel[c * plane]);
        special |= static_cast<unsigned>((out[c].bits & 0x7c00U) == 0x7c00U);
      }
      for (std::int64_t c = shape.channels; c < stride; ++c) out[c] = half{};
    }
    if (special != 0) finite = false;
  });
  return finite;
}

void export_nchw(const TensorView& src, float* dst, ThreadPool& pool) {
  const Shape shape = src.shape;
  const std::int64_t stride = shape.stride();
  const std::int64_t plane = shape.height * shape.width;
  pool.parallel_for(shape.pixels(), [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
    for (std::int64_t p = begin; p < end; ++p) {
      const half* pixel = src.as<half>() + p * stride;
      float* out = dst + p / plane * shape.channels * plane + p % plane;
      for (std::int64_t c = 0; c < shape.channels; ++c) out[c * plane] = to_float(pixel[c]);
    }
  });
}

}  // namespace qpp
