// SPDX-License-Identifier: Apache-2.0
#include "network/arena.h"

#include <limits>

#include "base/align.h"
#include "base/check.h"

namespace qpp {

Arena::Arena(std::size_t bytes) {
  if (bytes <= std::numeric_limits<std::size_t>::max() - kAlignment)
    block_.reset(std::calloc(bytes + kAlignment, 1));
  QPP_CHECK(block_ != nullptr, Error, "the values of a run need ", bytes,
            " bytes, which are not available");
  void* start = block_.get();
  std::size_t space = bytes + kAlignment;
  data_ = static_cast<std::byte*>(std::align(kAlignment, bytes, start, space));
  size_ = bytes;
}

}  // namespace qpp
