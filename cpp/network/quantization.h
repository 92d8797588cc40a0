// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ops/features.h"
#include "ops/predict_qparams.h"
#include "tensor/constants.h"
#include "tensor/qparams.h"

namespace qpp {

class Field;

/// A feature and the value that it is a statistic of.
struct Feature {
  std::string value;
  FeatureSpec spec;
};

/// The features and targets of a linear regressor.
struct Predictor {
  std::string position;  // the value of all features that do not name another
  std::vector<Feature> features;
  std::string last_source;  // the last value, in the order of definition, that features are of
  std::vector<int> rows;    // of the QP table: the bounds that it predicts
  Transform target_transform = Transform::identity;
};

/// The parameters of a predictor's regressor for one alpha, as PredictQParams reads them.
struct Regressor {
  std::vector<float> weight;
  std::vector<float> bias;
};

/// The bounds that calibration found for one alpha.
struct Bounds {
  double alpha = 1;
  std::map<std::string, std::vector<Range>> of_static;  // by rule, per row
  std::vector<CalibratedRange> calibrated_range;        // per row; may be empty
  std::vector<Regressor> regressors;  // per predictor; empty in a file that is not fitted
};

/// By value.
using FeatureTargets = std::map<std::string, std::vector<MeasureFeatures::Target>>;

struct Quantization {
  std::vector<std::string> values;  // one row of the QP table each
  std::map<std::string, int> rows;  // by value
  std::string default_static;
  std::vector<double> densities;  // of dense + sparse execution that the file is calibrated for
  std::vector<Bounds> bounds;     // without density, then for each of them
  std::vector<Predictor> predictors;

  /// Row of a value, or -1.
  [[nodiscard]] int row(const std::string& value) const;
  /// The features of all predictors form a matrix [predictors, columns], padded to the longest
  /// list.
  [[nodiscard]] std::size_t feature_columns() const;
  /// The features to measure on every value that predictors read; slots are those of the matrix.
  [[nodiscard]] FeatureTargets feature_targets() const;
  /// Null where the file has none for this density.
  [[nodiscard]] const Bounds* find_bounds(std::optional<double> density) const;
};

/// Every value of a graph, with its place in the order of definition.
using ValueOrder = std::map<std::string, std::size_t>;

/// Reads the member "quantization" of a graph of this format version. All of `int8_values` must
/// have a row. Throws ModelError.
Quantization parse_quantization(const Field& field, int format_version, Constants& constants,
                                const ValueOrder& order,
                                const std::vector<std::string>& int8_values);

}  // namespace qpp
