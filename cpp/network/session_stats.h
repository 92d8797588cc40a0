// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace qpp {

using CountByValue = std::vector<std::pair<std::string, std::int64_t>>;

/// Counts since a session opened. Lists that do not concern the scheme are empty.
struct SessionStats {
  std::int64_t runs = 0;
  std::int64_t samples = 0;          // of the batches of all runs
  std::int64_t predictions = 0;      // predicted rows, over all samples
  CountByValue clamped_predictions;  // predictions clamped to the calibrated range
  CountByValue widened_bounds;       // bounds that would have clipped too much
  CountByValue dropped_outliers;     // outliers beyond the capacity of a list
};

}  // namespace qpp
