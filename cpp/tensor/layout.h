// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/align.h"

namespace qpp {

/// Channels of an activation are padded to this many, so that one pixel is a whole number of 8-lane
/// vectors.
inline constexpr std::int64_t kChannelPadding = 8;

/// An activation, NHWC: element (n, y, x, c) is at ((n * height + y) * width + x) * stride() + c.
/// The channels from `channels` up to stride() hold finite values that no operation may depend on.
struct Shape {
  std::int64_t batch = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 0;

  [[nodiscard]] std::int64_t stride() const { return round_up(channels, kChannelPadding); }
  [[nodiscard]] std::int64_t pixels() const { return batch * height * width; }
  /// Elements in memory, padding included.
  [[nodiscard]] std::int64_t elements() const { return pixels() * stride(); }
  bool operator==(const Shape&) const = default;
};

/// "[n, c, h, w]", the order in which users write shapes.
std::string to_string(const Shape& shape);

}  // namespace qpp
