// SPDX-License-Identifier: Apache-2.0
//
// How the depthwise kernels walk a row of pixels.
#pragma once

#include <cstddef>
#include <type_traits>

#include "kernels/depthwise.h"
#include "kernels/neon/vectors.h"

namespace qpp {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

/// Calls run(Constant<n>, Constant<stride>) for the n x n kernels whose windows share columns, and
/// which are unrolled; for all others, where more than n / 2 columns of a window are padding, and
/// with another nonlinearity than bounds, both are 0.
template <typename Run>
QPP_NEON_INLINE void choose_depthwise_shape(const DepthwiseArgs& args, const Run& run) {
  const std::int64_t size = args.kernel_width;
  const std::int64_t end = (args.pixel_count - 1) * args.stride - args.left + size;
  const bool unrolls = args.kernel_height == size && args.dilation == 1 && args.left <= size / 2 &&
                       end <= args.width + size / 2 &&
                       args.output->nonlinearity == Nonlinearity::clamp;
  if (unrolls && size == 3 && args.stride == 1) return run(Constant<3>{}, Constant<1>{});
  if (unrolls && size == 3 && args.stride == 2) return run(Constant<3>{}, Constant<2>{});
  if (unrolls && size == 5 && args.stride == 1) return run(Constant<5>{}, Constant<1>{});
  if (unrolls && size == 5 && args.stride == 2) return run(Constant<5>{}, Constant<2>{});
  run(Constant<0>{}, Constant<0>{});
}

/// On which sides windows may overlap padding.
inline constexpr int kInside = 0;
inline constexpr int kLeft = 1;
inline constexpr int kRight = 2;
inline constexpr int kBoth = kLeft | kRight;

/// Calls block(Constant<pixels>, Constant<sides>, first pixel) for the whole row, mostly four
/// pixels at a time. Some may be computed twice. Those inside have a loop of their own, whose
/// registers and instructions are not shared with the tests of the others.
template <typename Block>
QPP_NEON_INLINE void for_depthwise_blocks(const DepthwiseArgs& args, const Block& block) {
  const std::int64_t count = args.pixel_count;
  const std::int64_t extent = 3 * args.stride + (args.kernel_width - 1) * args.dilation + 1;
  const auto begin = [&](std::int64_t p) { return p * args.stride - args.left; };
  const auto ends_inside = [&](std::int64_t p) { return begin(p) + extent <= args.width; };
  std::int64_t next = 0;
  for (; next + 4 <= count && begin(next) < 0 && ends_inside(next); next += 4)
    block(Constant<4>{}, Constant<kLeft>{}, next);
  for (; next + 4 <= count && ends_inside(next); next += 4)
    block(Constant<4>{}, Constant<kInside>{}, next);
  for (; next + 3 <= count && count >= 4; next += 4) {
    const std::int64_t p = next + 4 <= count ? next : count - 4;
    if (begin(p) >= 0) {
      block(Constant<4>{}, Constant<kRight>{}, p);
    } else {
      block(Constant<4>{}, Constant<kBoth>{}, p);
    }
  }
  if (count == 1) block(Constant<1>{}, Constant<kBoth>{}, 0);
  for (; next < count && count > 1; next += 2)
    block(Constant<2>{}, Constant<kBoth>{}, next + 2 <= count ? next : count - 2);
}

/// Pointers to 8 channels from `c` on, of the columns that the window of output pixel `first`
/// begins with. In an unrolled n x n kernel, kTested = n / 2 columns on either side may be padding;
/// in any other, where it is 0, all.
template <typename T, int kBorder, int kTested>
class Columns {
 public:
  QPP_NEON_INLINE Columns(const DepthwiseArgs& args, std::int64_t c, std::int64_t first)
      : padding_(static_cast<const T*>(args.padding) + c),
        x_(first * args.stride - args.left),
        width_(args.width),
        pixel_bytes_(args.channels * static_cast<std::int64_t>(sizeof(T))) {}

  /// Column 0 of a row of the image, whether it has one or not.
  [[nodiscard]] QPP_NEON_INLINE const std::byte* begin(const T* row) const {
    return reinterpret_cast<const std::byte*>(row) + x_ * pixel_bytes_;
  }
  /// Column k of a row that begin() returned, of `count` columns.
  [[nodiscard]] QPP_NEON_INLINE const T* at(const std::byte* begin, std::int64_t k,
                                            std::int64_t count) const {
    const bool may_be_left = (kBorder & kLeft) != 0 && (kTested == 0 || k < kTested);
    const bool may_be_right = (kBorder & kRight) != 0 && (kTested == 0 || k >= count - kTested);
    const bool outside = (may_be_left && x_ + k < 0) || (may_be_right && x_ + k >= width_);
    return outside ? padding_ : reinterpret_cast<const T*>(begin + k * pixel_bytes_);
  }

 private:
  const T* padding_;
  std::int64_t x_;
  std::int64_t width_;
  std::int64_t pixel_bytes_;
};

}  // namespace qpp
