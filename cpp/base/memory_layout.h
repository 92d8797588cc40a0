// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/align.h"

namespace qpp {

/// Assigns consecutive parts of a block of memory to pointers, each aligned to kAlignment. Without
/// a base it only adds up their sizes, and the pointers are null.
class MemoryLayout {
 public:
  explicit MemoryLayout(std::byte* base) : base_(base) {}

  /// `pointer` = room for `count` elements.
  template <typename T>
  void add(T*& pointer, std::int64_t count) {
    pointer = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += round_up(static_cast<std::size_t>(count) * sizeof(T), kAlignment);
  }

  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  std::size_t bytes_ = 0;
};

}  // namespace qpp
