// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "ops/op.h"
#include "ops/statistics.h"

namespace qpp {

/// One row per quantized value, and what is measured on the way to its writer. Kernels only read
/// rows; the schemes differ only in who writes them, and when: the loader (static), predict_qparams
/// (qpp) or choose_qparams (dynamic).
struct QpTable {
  QpTable(std::size_t rows, std::size_t positions)
      : qparams(rows),
        ranges(rows),
        features(positions * kFeatures),
        clamps(rows),
        widened_bounds(rows),
        cut_outliers(rows) {}

  [[nodiscard]] RunState state(ThreadPool& pool) {
    return {pool, qparams, ranges, features, clamps, widened_bounds};
  }

  std::vector<QParams> qparams;
  std::vector<Range> ranges;
  std::vector<float> features;
  // Counts per row, over all runs.
  std::vector<std::int64_t> clamps;
  std::vector<std::int64_t> widened_bounds;
  std::vector<std::int64_t> cut_outliers;  // those that found no room
};

}  // namespace qpp
