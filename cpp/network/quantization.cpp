// SPDX-License-Identifier: Apache-2.0
#include "network/quantization.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include "base/join.h"
#include "base/json_field.h"
#include "tensor/outliers.h"

namespace qpp {
namespace {

constexpr std::size_t kMaxDensities = 32;  // up to 16 of a user, and those of the tails
constexpr std::size_t kMaxFeatures = 64;   // of one predictor

/// Names of an enumeration, in order.
template <typename Enum, std::size_t kCount>
Enum parse_name(const Field& field, const char* const (&names)[kCount]) {
  const std::string name = field.string();
  const auto* const found = std::find(std::begin(names), std::end(names), name);
  if (found != std::end(names)) return static_cast<Enum>(found - std::begin(names));
  throw UnsupportedError(
      concat(field.where(), ": expected one of ", join(names), ", got \"", name, "\""));
}

class Parser {
 public:
  Parser(int format_version, Constants& constants, const ValueOrder& order)
      : first_format_(format_version == 1), constants_(constants), order_(order) {}

  Quantization parse(const Field& field, const std::vector<std::string>& int8_values) {
    const char* range_key = first_format_ ? "seen" : "calibrated_range";
    field.only(
        {"alpha", "densities", "values", "static", "default_static", range_key, "predictors"});
    Quantization result;
    result.bounds.emplace_back().alpha = parse_alpha(field["alpha"]);
    if (field.has("densities")) {
      result.densities = parse_densities(field["densities"]);
      for (const double density : result.densities)
        result.bounds.emplace_back().alpha = 1 - density;
    }
    result.values = field["values"].strings();
    for (const std::string& value : result.values) {
      require_value(value, field["values"].where());
      const auto row = static_cast<int>(result.rows.size());
      QPP_CHECK(result.rows.emplace(value, row).second, ModelError, field["values"].where(),
                ": the value '", value, "' occurs twice");
    }
    for (const std::string& value : int8_values) {
      QPP_CHECK(result.rows.contains(value), ModelError, field["values"].where(), ": '", value,
                "', which is held in int8, is missing");
    }
    check_coverage(field["predictors"], result.values);
    if (field.has("static")) parse_static(field, result);
    if (field.has(range_key)) parse_calibrated_range(field[range_key], result);
    for (const Field& predictor : field["predictors"].list()) parse_predictor(predictor, result);
    return result;
  }

 private:
  void require_value(const std::string& value, const std::string& where) const {
    QPP_CHECK(order_.contains(value), ModelError, where, ": the value '", value,
              "' is not defined before its use");
  }

  /// A tensor of the given shape, as a flat list.
  [[nodiscard]] std::vector<float> matrix(const Field& name, std::size_t rows,
                                          std::size_t columns) {
    const Tensor& values = constants_.find(name.string(), name.where());
    std::vector<std::int64_t> expected{static_cast<std::int64_t>(rows)};
    if (columns > 0) expected.push_back(static_cast<std::int64_t>(columns));
    QPP_CHECK(values.shape == expected, ModelError, name.where(), ": the tensor '", name.string(),
              "' has the wrong shape for ", rows, " rows");
    constants_.count(values.elements(), 0, name.where());
    return Constants::floats(values, name.where());
  }

  /// Tensors hold the numbers of all sets of bounds, one after the other.
  void parse_static(const Field& field, Quantization& result) {
    const std::size_t rows = result.values.size();
    field["static"].only({"mean", "range", "fitted"});
    for (const char* rule : {"mean", "range", "fitted"}) {
      if (std::string_view(rule) == "fitted" && !field["static"].has(rule)) continue;
      const std::vector<float> all = matrix(field["static"][rule], result.bounds.size() * rows, 2);
      for (std::size_t set = 0; set < result.bounds.size(); ++set) {
        auto& of_rule = result.bounds[set].of_static[rule];  // empty where nothing is quantized
        for (std::size_t i = set * rows; i < (set + 1) * rows; ++i) {
          QPP_CHECK(all[2 * i] <= all[2 * i + 1], ModelError, field["static"][rule].where(),
                    ": expected lo, hi in this order for '", result.values[i % rows], "'");
          of_rule.push_back({.lo = all[2 * i], .hi = all[2 * i + 1]});
        }
      }
    }
    result.default_static = field["default_static"].string();
    QPP_CHECK(result.bounds[0].of_static.contains(result.default_static), ModelError,
              field["default_static"].where(), ": the file has no static bounds \"",
              result.default_static, "\"");
  }

  void parse_calibrated_range(const Field& field, Quantization& result) {
    const std::size_t rows = result.values.size();
    const std::vector<float> all = matrix(field, result.bounds.size() * rows, 4);
    for (std::size_t i = 0; i < all.size() / 4; ++i) {
      const float* limits = &all[4 * i];
      QPP_CHECK(limits[0] <= limits[1] && limits[2] <= limits[3], ModelError, field.where(),
                ": expected lowest and highest bounds in this order for '", result.values[i % rows],
                "'");
      result.bounds[i / rows].calibrated_range.push_back(
          {.lo = {.lo = limits[0], .hi = limits[1]}, .hi = {.lo = limits[2], .hi = limits[3]}});
    }
  }

  void parse_predictor(const Field& field, Quantization& result) {
    const char* features_key = first_format_ ? "alphas" : "features";
    std::set<std::string> known{"position", features_key, "rows", "weight", "bias"};
    if (!first_format_) known.insert("target_transform");
    field.only(known);
    Predictor predictor;
    predictor.position = field["position"].string();
    require_value(predictor.position, field.where());
    const Field features = field[features_key];
    predictor.features = first_format_ ? first_features(features, predictor.position)
                                       : parse_features(features, predictor.position);
    predictor.last_source = std::max_element(predictor.features.begin(), predictor.features.end(),
                                             [this](const Feature& a, const Feature& b) {
                                               return order_.at(a.value) < order_.at(b.value);
                                             })
                                ->value;
    for (const Field& row : field["rows"].list()) {
      const std::size_t index = row_index(row, result.values.size());
      const std::string& value = result.values[index];
      const std::string& source = predictor.last_source;
      QPP_CHECK(order_.at(value) >= order_.at(source), ModelError, row.where(), ": the value '",
                value, "' comes before the ",
                source == predictor.position ? "position '" : "source of a feature '", source,
                "' that predicts it");
      predictor.rows.push_back(static_cast<int>(index));
    }
    if (field.has("target_transform"))
      predictor.target_transform = parse_name<Transform>(field["target_transform"], kTransforms);
    if (field.has("weight")) parse_regressors(field, predictor, result);
    result.predictors.push_back(std::move(predictor));
  }

  void parse_regressors(const Field& field, const Predictor& predictor, Quantization& result) {
    QPP_CHECK(result.bounds[0].calibrated_range.size() == result.values.size(), ModelError,
              field.where(), ": a fitted predictor needs the calibrated range of its values");
    QPP_CHECK(result.bounds[0].regressors.size() == result.predictors.size(), ModelError,
              field.where(), ": expected either all predictors to be fitted or none");
    const std::size_t sets = result.bounds.size();
    const std::size_t outputs = 2 * predictor.rows.size();
    const std::size_t columns = predictor.features.size();
    const std::vector<float> weight = matrix(field["weight"], sets * outputs, columns);
    const std::vector<float> bias = matrix(field["bias"], sets * outputs, 0);
    for (std::size_t set = 0; set < sets; ++set) {
      const auto part = [set](const std::vector<float>& all, std::size_t size) {
        const float* begin = all.data() + set * size;
        return std::vector<float>(begin, begin + size);
      };
      result.bounds[set].regressors.push_back(
          {.weight = part(weight, outputs * columns), .bias = part(bias, outputs)});
    }
  }

  /// The features of format version 1: three quantiles, mean and max.
  static std::vector<Feature> first_features(const Field& alphas, const std::string& position) {
    std::vector<Feature> features;
    for (const Field& alpha : alphas.list(3)) {
      features.push_back({position, {.kind = FeatureKind::quantile, .alpha = parse_alpha(alpha)}});
    }
    features.push_back({position, {.kind = FeatureKind::mean}});
    features.push_back({position, {.kind = FeatureKind::max}});
    return features;
  }

  [[nodiscard]] std::vector<Feature> parse_features(const Field& field,
                                                    const std::string& position) const {
    std::vector<Feature> features;
    for (const Field& item : field.list()) {
      item.only({"kind", "alpha", "value", "transform"});
      Feature feature{.value = position, .spec = {}};
      feature.spec.kind = parse_name<FeatureKind>(item["kind"], kFeatureKinds);
      QPP_CHECK(item.has("alpha") == (feature.spec.kind == FeatureKind::quantile), ModelError,
                item.where(), ": expected an alpha for the kind \"quantile\" and for no other");
      if (item.has("alpha")) feature.spec.alpha = parse_alpha(item["alpha"]);
      if (item.has("value")) feature.value = item["value"].string();
      require_value(feature.value, item.where());
      if (item.has("transform"))
        feature.spec.transform = parse_name<Transform>(item["transform"], kTransforms);
      features.push_back(std::move(feature));
    }
    QPP_CHECK(!features.empty() && features.size() <= kMaxFeatures, ModelError, field.where(),
              ": expected 1 to ", kMaxFeatures, " features, got ", features.size());
    return features;
  }

  static double parse_alpha(const Field& field) {
    const double alpha = field.number();
    QPP_CHECK(alpha > 0.5 && alpha <= 1, ModelError, field.where(),
              ": expected an alpha above 0.5 and up to 1, got ", alpha);
    return alpha;
  }

  static std::vector<double> parse_densities(const Field& field) {
    std::vector<double> densities;
    for (const Field& item : field.list()) {
      const double density = item.number();
      const double last = densities.empty() ? 0 : densities.back();
      QPP_CHECK(density > last && density <= kMaxDensity, ModelError, item.where(),
                ": expected a density above ", last, " and up to ", kMaxDensity, ", got ", density);
      densities.push_back(density);
    }
    QPP_CHECK(densities.size() <= kMaxDensities, ModelError, field.where(), ": expected up to ",
              kMaxDensities, " densities, got ", densities.size());
    return densities;
  }

  static void check_coverage(const Field& predictors, const std::vector<std::string>& values) {
    std::vector<int> counts(values.size(), 0);
    for (const Field& predictor : predictors.list()) {
      for (const Field& row : predictor["rows"].list()) ++counts[row_index(row, values.size())];
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
      QPP_CHECK(counts[i] == 1, ModelError, predictors.where(),
                ": expected one predictor for the value '", values[i], "', got ", counts[i]);
    }
  }

  static std::size_t row_index(const Field& row, std::size_t rows) {
    return static_cast<std::size_t>(row.integer(0, static_cast<std::int64_t>(rows) - 1));
  }

  bool first_format_;  // format version 1: the features are fixed
  Constants& constants_;
  const ValueOrder& order_;
};

}  // namespace

int Quantization::row(const std::string& value) const {
  const auto found = rows.find(value);
  return found == rows.end() ? -1 : found->second;
}

std::size_t Quantization::feature_columns() const {
  std::size_t columns = 0;
  for (const Predictor& predictor : predictors)
    columns = std::max(columns, predictor.features.size());
  return columns;
}

FeatureTargets Quantization::feature_targets() const {
  FeatureTargets targets;
  const std::size_t columns = feature_columns();
  for (std::size_t p = 0; p < predictors.size(); ++p) {
    for (std::size_t i = 0; i < predictors[p].features.size(); ++i) {
      const Feature& feature = predictors[p].features[i];
      targets[feature.value].push_back({.feature = feature.spec, .slot = p * columns + i});
    }
  }
  return targets;
}

const Bounds* Quantization::find_bounds(std::optional<double> density) const {
  if (!density) return bounds.data();
  const auto found = std::find_if(bounds.begin(), bounds.end(), [&](const Bounds& set) {
    return std::abs(1 - set.alpha - *density) <= 1e-3 * *density;
  });
  return found == bounds.end() ? nullptr : &*found;
}

Quantization parse_quantization(const Field& field, int format_version, Constants& constants,
                                const ValueOrder& order,
                                const std::vector<std::string>& int8_values) {
  return Parser(format_version, constants, order).parse(field, int8_values);
}

}  // namespace qpp
