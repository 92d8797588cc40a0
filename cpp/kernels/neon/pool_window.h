// SPDX-License-Identifier: Apache-2.0
//
// Maxima of windows, for the element types of both max pools.
#pragma once

#include "kernels/neon/vectors.h"
#include "kernels/pool.h"

namespace qpp {

/// `Vector` has value_type, size, load(), store() and larger(). One vector of channels after the
/// other walks the row of pixels. A 3x3 window takes the maxima of its columns first: those of the
/// columns that it shares with the next window are found once.
template <typename Vector>
QPP_NEON_INLINE void max_pool_channels(const PoolArgs& args, std::int64_t channel) {
  using T = Vector::value_type;
  using V = Vector::type;
  const std::int64_t pixel = args.channels;
  auto* dst = static_cast<T*>(args.dst) + channel;
  const auto row = [&](std::int64_t r) { return static_cast<const T*>(args.rows[r]) + channel; };

  if (args.row_count == 3 && args.width == 3 && (args.stride == 1 || args.stride == 2)) {
    const T* top = row(0);
    const T* middle = row(1);
    const T* bottom = row(2);
    const auto column = [&](std::int64_t at) {
      return Vector::larger(Vector::larger(Vector::load(top + at), Vector::load(middle + at)),
                            Vector::load(bottom + at));
    };
    V first = column(0);
    if (args.stride == 2) {
      std::int64_t p = 0;
      for (; p + 2 <= args.pixel_count; p += 2) {
        const std::int64_t at = 2 * p * pixel;
        const V second = column(at + pixel);
        const V third = column(at + 2 * pixel);
        const V fourth = column(at + 3 * pixel);
        const V fifth = column(at + 4 * pixel);
        Vector::store(dst + p * pixel, Vector::larger(Vector::larger(first, second), third));
        Vector::store(dst + (p + 1) * pixel, Vector::larger(Vector::larger(third, fourth), fifth));
        first = fifth;
      }
      if (p < args.pixel_count) {
        const std::int64_t at = 2 * p * pixel;
        const V second = column(at + pixel);
        const V third = column(at + 2 * pixel);
        Vector::store(dst + p * pixel, Vector::larger(Vector::larger(first, second), third));
      }
      return;
    }
    V second = column(pixel);
    for (std::int64_t p = 0; p < args.pixel_count; ++p) {
      const V third = column((p + 2) * pixel);
      Vector::store(dst + p * pixel, Vector::larger(Vector::larger(first, second), third));
      first = second;
      second = third;
    }
    return;
  }

  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    const std::int64_t begin = p * args.stride * pixel;
    V largest = Vector::load(row(0) + begin);
    for (std::int64_t r = 0; r < args.row_count; ++r) {
      const T* src = row(r) + begin;
      for (std::int64_t k = 0; k < args.width; ++k)
        largest = Vector::larger(largest, Vector::load(src + k * pixel));
    }
    Vector::store(dst + p * pixel, largest);
  }
}

}  // namespace qpp
