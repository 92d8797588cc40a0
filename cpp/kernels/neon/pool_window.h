// SPDX-License-Identifier: Apache-2.0
//
// Maxima of windows, for the element types of both max pools.
#pragma once

#include "kernels/neon/vectors.h"
#include "kernels/pool.h"

namespace qpp {

/// Channels of a vector, which is as described for max_pool_channels().
template <typename Vector>
inline constexpr std::int64_t kVectorChannels =
    sizeof(typename Vector::type) / sizeof(typename Vector::value_type);

/// Four vectors of channels as one: a line of the caches, so that each line of a row is read once,
/// in order, and comes while others are compared.
template <typename Vector>
struct Line {
  using value_type = Vector::value_type;
  struct type {
    Vector::type parts[4];
  };
  QPP_NEON_INLINE static type load(const value_type* src) {
    type line;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) line.parts[i] = Vector::load(src + i * kVectorChannels<Vector>);
    return line;
  }
  QPP_NEON_INLINE static void store(value_type* dst, const type& line) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) Vector::store(dst + i * kVectorChannels<Vector>, line.parts[i]);
  }
  QPP_NEON_INLINE static type larger(const type& a, const type& b) {
    type line;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) line.parts[i] = Vector::larger(a.parts[i], b.parts[i]);
    return line;
  }
};

/// `Vector` has value_type, type, load(), store() and larger(). One vector of channels after the
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

/// All channels from `channel` on that fill whole vectors; it moves on.
template <typename Vector>
QPP_NEON_INLINE void max_pool(const PoolArgs& args, std::int64_t& channel) {
  constexpr std::int64_t kStep = kVectorChannels<Vector>;
  for (; channel + kStep <= args.channels; channel += kStep)
    max_pool_channels<Vector>(args, channel);
}

}  // namespace qpp
