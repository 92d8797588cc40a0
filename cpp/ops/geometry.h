// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "base/limits.h"

namespace qpp {

class Field;

/// A pair in the order height, width.
struct Size2d {
  std::int64_t height = 1;
  std::int64_t width = 1;
};

/// Pixels that are added around an image.
struct Padding {
  std::int64_t height = 0;      // above
  std::int64_t width = 0;       // on the left
  std::int64_t more_below = 0;  // than above
  std::int64_t more_right = 0;  // than on the left

  [[nodiscard]] std::int64_t rows() const { return 2 * height + more_below; }
  [[nodiscard]] std::int64_t columns() const { return 2 * width + more_right; }
};

/// From an attribute of two integers of at least 1.
Size2d parse_size(const Field& field, const Limits& limits);

/// From an attribute of two integers, for rows and columns on either side, or of four: top, left,
/// bottom, right.
Padding parse_padding(const Field& field, const Limits& limits);

/// From top, left, bottom and right.
Padding padding_of(std::span<const std::int64_t> sides);

}  // namespace qpp
