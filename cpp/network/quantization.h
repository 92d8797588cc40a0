// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ops/statistics.h"
#include "tensor/constants.h"
#include "tensor/qparams.h"

namespace qpp {

class Field;

/// A QPP position and its regressor.
struct Predictor {
  std::string position;
  std::array<double, kFeatureQuantiles> alphas{};
  std::vector<PredictQParams::Row> rows;
  bool fitted = false;  // false in a file that is only calibrated from
};

/// The bounds that calibration found for one alpha.
struct Bounds {
  double alpha = 1;
  std::map<std::string, std::vector<Range>> of_static;  // by rule ("mean", "range"), per row
  std::vector<Predictor> predictors;
};

struct Quantization {
  std::vector<std::string> values;  // one row of the QP table each
  std::map<std::string, int> rows;  // by value
  std::string default_static;
  std::vector<double> densities;  // of dense + sparse execution that the file is calibrated for
  std::vector<Bounds> bounds;     // without density, then for each of them

  /// Row of a value, or -1.
  [[nodiscard]] int row(const std::string& value) const;
  /// Null where the file has none for this density.
  [[nodiscard]] const Bounds* find_bounds(std::optional<double> density) const;
};

/// Every value of a graph, with its place in the order of definition.
using ValueOrder = std::map<std::string, std::size_t>;

/// Reads the member "quantization" of a graph. All of `int8_values` must have a row. Throws
/// ModelError.
Quantization parse_quantization(const Field& field, const Constants& constants,
                                const ValueOrder& order,
                                const std::vector<std::string>& int8_values);

}  // namespace qpp
