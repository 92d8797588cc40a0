// SPDX-License-Identifier: Apache-2.0
#include "ops/layout.h"

#include <algorithm>
#include <atomic>

#include "base/half.h"

namespace qpp {
namespace {

/// Where row `row` of all images begins in the first plane of a float NCHW array.
std::int64_t nchw_row(const Shape& shape, std::int64_t row) {
  const std::int64_t image = row / shape.height;
  return (image * shape.channels * shape.height + row % shape.height) * shape.width;
}

}  // namespace

bool import_nchw(const float* src, const TensorView& dst, ThreadPool& pool) {
  const Shape shape = dst.shape;
  const std::int64_t stride = shape.stride();
  const std::int64_t plane = shape.height * shape.width;
  std::atomic<bool> finite{true};
  const auto import_row = [&](std::int64_t row) {
    unsigned largest = 0;
    half* pixels = dst.as<half>() + row * shape.width * stride;
    std::fill_n(pixels, shape.width * stride, half{});
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const float* from = src + nchw_row(shape, row) + c * plane;
      for (std::int64_t x = 0; x < shape.width; ++x) {
        const half value = to_half(from[x]);
        pixels[x * stride + c] = value;
        largest = std::max(largest, value.bits & 0x7fffU);
      }
    }
    constexpr unsigned kInfinity = 0x7c00;
    if (largest >= kInfinity) finite = false;
  };
  pool.parallel_for(shape.batch * shape.height,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t row = begin; row < end; ++row) import_row(row);
                    });
  return finite;
}

void export_nchw(const TensorView& src, float* dst, ThreadPool& pool) {
  const Shape shape = src.shape;
  const std::int64_t stride = shape.stride();
  const std::int64_t plane = shape.height * shape.width;
  const auto export_row = [&](std::int64_t row) {
    const half* pixels = src.as<half>() + row * shape.width * stride;
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      float* to = dst + nchw_row(shape, row) + c * plane;
      for (std::int64_t x = 0; x < shape.width; ++x) to[x] = to_float(pixels[x * stride + c]);
    }
  };
  pool.parallel_for(shape.batch * shape.height,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t row = begin; row < end; ++row) export_row(row);
                    });
}

}  // namespace qpp
