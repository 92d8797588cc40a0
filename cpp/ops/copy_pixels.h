// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qpp {

/// Part of the channels of successive pixels, in a tensor and in another that holds them elsewhere.
struct PixelCopy {
  const std::byte* src;
  std::byte* dst;
  std::int64_t src_pixel;  // bytes from pixel to pixel
  std::int64_t dst_pixel;
  std::int64_t bytes;  // of a pixel's part
};

/// Copies them. Parts of a vector or more are copied as whole vectors, the last of which overlaps
/// the one before: a call of memcpy for every pixel would cost several times as much.
inline void copy_pixels(const PixelCopy& copy, std::int64_t pixels) {
  constexpr std::int64_t kVector = 16;
  const std::byte* src = copy.src;
  std::byte* dst = copy.dst;
  const std::int64_t last = copy.bytes - kVector;
  for (std::int64_t p = 0; p < pixels; ++p) {
    if (last < 0) {
      std::memcpy(dst, src, static_cast<std::size_t>(copy.bytes));
    } else {
      for (std::int64_t i = 0; i < last; i += kVector) std::memcpy(dst + i, src + i, kVector);
      std::memcpy(dst + last, src + last, kVector);
    }
    src += copy.src_pixel;
    dst += copy.dst_pixel;
  }
}

}  // namespace qpp
