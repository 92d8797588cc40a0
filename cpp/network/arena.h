// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace qpp {

/// One zeroed block of memory that starts on a cache line. The system provides pages of a large
/// block on first use, so a network that is prepared but not run costs none.
class Arena {
 public:
  Arena() = default;
  /// Throws Error where the memory is not available.
  explicit Arena(std::size_t bytes);

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };

  std::unique_ptr<void, Free> block_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace qpp
