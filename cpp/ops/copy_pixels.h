// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qpp {

inline constexpr std::int64_t kCopyBytes = 16;  // of a vector

/// Part of the channels of successive pixels, in a tensor and in another that holds them elsewhere.
struct PixelCopy {
  const std::byte* src;
  std::byte* dst;
  std::int64_t src_pixel;  // bytes from pixel to pixel
  std::int64_t dst_pixel;
  std::int64_t bytes;  // of a pixel's part
};

// Below, `copy` is one of its own, which no store can change.

/// Copies kVectors vectors of every pixel: those from `offset` on, and the last one from `last` on.
template <int kVectors>
void copy_vectors(PixelCopy copy, std::int64_t pixels, std::int64_t offset, std::int64_t last) {
  for (std::int64_t p = 0; p < pixels; ++p) {
#pragma GCC unroll 3
    for (int v = 0; v + 1 < kVectors; ++v)
      std::memcpy(copy.dst + offset + v * kCopyBytes, copy.src + offset + v * kCopyBytes,
                  kCopyBytes);
    std::memcpy(copy.dst + last, copy.src + last, kCopyBytes);
    copy.src += copy.src_pixel;
    copy.dst += copy.dst_pixel;
  }
}

/// The same for parts of kBytes to 2 * kBytes: their first bytes, and the last ones.
template <int kBytes>
void copy_ends(PixelCopy copy, std::int64_t pixels) {
  const std::int64_t last = copy.bytes - kBytes;
#pragma GCC unroll 4
  for (std::int64_t p = 0; p < pixels; ++p) {
    std::memcpy(copy.dst, copy.src, kBytes);
    if constexpr (kBytes > 1) std::memcpy(copy.dst + last, copy.src + last, kBytes);
    copy.src += copy.src_pixel;
    copy.dst += copy.dst_pixel;
  }
}

/// Copies them. Parts of a vector or more are copied as whole vectors, the last of which overlaps
/// the one before, four at most at a time: loops, or calls of memcpy, for every pixel would cost
/// several times as much.
inline void copy_pixels(const PixelCopy& copy, std::int64_t pixels) {
  if (copy.bytes < 2) return copy_ends<1>(copy, pixels);
  if (copy.bytes < 4) return copy_ends<2>(copy, pixels);
  if (copy.bytes < 8) return copy_ends<4>(copy, pixels);
  if (copy.bytes < kCopyBytes) return copy_ends<8>(copy, pixels);
  const std::int64_t last = copy.bytes - kCopyBytes;
  std::int64_t offset = 0;
  for (; last - offset > 3 * kCopyBytes; offset += 4 * kCopyBytes)
    copy_vectors<4>(copy, pixels, offset, offset + 3 * kCopyBytes);
  if (last - offset > 2 * kCopyBytes) return copy_vectors<4>(copy, pixels, offset, last);
  if (last - offset > kCopyBytes) return copy_vectors<3>(copy, pixels, offset, last);
  if (last > offset) return copy_vectors<2>(copy, pixels, offset, last);
  copy_vectors<1>(copy, pixels, offset, last);
}

}  // namespace qpp
