// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include "network/session_stats.h"
#include "ops/op.h"

namespace qpp {

/// One row per quantized value, after these the rows that are copies of others
/// (Program::copied_rows), and the features that predictors read. Kernels only read rows; schemes
/// differ in where these come from (QParamsSource).
struct QpTable {
  QpTable(std::size_t value_count, std::size_t feature_count, std::vector<int> copies = {})
      : values(value_count),
        copied_rows(std::move(copies)),
        qparams(values + copied_rows.size()),
        ranges(qparams.size()),
        features(feature_count),
        clamped_predictions(qparams.size()),
        widened_bounds(qparams.size()),
        dropped_outliers(qparams.size()) {
    replaced.reserve(qparams.size());
  }

  [[nodiscard]] RunState state(ThreadPool& pool) {
    return {pool, qparams, ranges, features, clamped_predictions, widened_bounds};
  }

  /// Counts by value: those of a copied row are counted for the value that it is copied from.
  [[nodiscard]] CountByValue by_value(const std::vector<std::int64_t>& counts) const {
    CountByValue sums;
    for (const std::string& name : value_names) sums.emplace_back(name, 0);
    for (std::size_t row = 0; row < counts.size(); ++row) {
      const std::size_t value =
          row < values ? row : static_cast<std::size_t>(copied_rows[row - values]);
      sums[value].second += counts[row];
    }
    return sums;
  }

  std::size_t values;  // rows that are not copies
  std::vector<std::string> value_names;
  std::vector<int> copied_rows;
  std::vector<QParams> qparams;
  std::vector<Range> ranges;
  std::vector<float> features;
  // Counts per row, over all runs.
  std::vector<std::int64_t> clamped_predictions;
  std::vector<std::int64_t> widened_bounds;
  std::vector<std::int64_t> dropped_outliers;  // beyond the capacity of a list
  /// Rows as they were before this run extended them; never more than there are rows.
  std::vector<std::pair<std::size_t, QParams>> replaced;
};

}  // namespace qpp
