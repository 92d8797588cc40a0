// SPDX-License-Identifier: Apache-2.0
#include "network/quantization.h"

#include <algorithm>
#include <cmath>

#include "base/json_field.h"
#include "tensor/outliers.h"

namespace qpp {
namespace {

constexpr std::size_t kMaxDensities = 16;

class Parser {
 public:
  Parser(const Constants& constants, const ValueOrder& order)
      : constants_(constants), order_(order) {}

  Quantization parse(const Field& field, const std::vector<std::string>& int8_values) const {
    field.only({"alpha", "densities", "values", "static", "default_static", "seen", "predictors"});
    Quantization result;
    result.bounds.push_back(
        {.alpha = parse_alpha(field["alpha"]), .of_static = {}, .predictors = {}});
    if (field.has("densities")) {
      result.densities = parse_densities(field["densities"]);
      for (const double density : result.densities)
        result.bounds.push_back({.alpha = 1 - density, .of_static = {}, .predictors = {}});
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
    for (std::size_t set = 0; set < result.bounds.size(); ++set) parse_bounds(field, set, result);
    return result;
  }

 private:
  void require_value(const std::string& value, const std::string& where) const {
    QPP_CHECK(order_.contains(value), ModelError, where, ": the value '", value,
              "' is not defined before its use");
  }

  /// A tensor of the given shape, as a flat list.
  [[nodiscard]] std::vector<float> matrix(const Field& name, std::size_t rows,
                                          std::size_t columns) const {
    const Tensor& values = constants_.find(name.string(), name.where());
    std::vector<std::int64_t> expected{static_cast<std::int64_t>(rows)};
    if (columns > 0) expected.push_back(static_cast<std::int64_t>(columns));
    QPP_CHECK(values.shape == expected, ModelError, name.where(), ": the tensor '", name.string(),
              "' has the wrong shape for ", rows, " rows");
    return Constants::floats(values, name.where());
  }

  /// The set of bounds of this index, from tensors that hold those of all sets one after the other.
  void parse_bounds(const Field& field, std::size_t set, Quantization& result) const {
    const std::size_t rows = result.values.size();
    const std::size_t sets = result.bounds.size();
    Bounds& bounds = result.bounds[set];
    if (field.has("static")) {
      field["static"].only({"mean", "range"});
      for (const char* rule : {"mean", "range"}) {
        const std::vector<float> all = matrix(field["static"][rule], sets * rows, 2);
        auto& of_rule = bounds.of_static[rule];  // empty where nothing is quantized
        for (std::size_t i = set * rows; i < (set + 1) * rows; ++i)
          of_rule.push_back({.lo = all[2 * i], .hi = all[2 * i + 1]});
      }
      result.default_static = field["default_static"].string();
      QPP_CHECK(bounds.of_static.contains(result.default_static), ModelError,
                field["default_static"].where(), ": expected \"mean\" or \"range\", got \"",
                result.default_static, "\"");
    }
    const std::vector<float> seen =
        field.has("seen") ? matrix(field["seen"], sets * rows, 4) : std::vector<float>();
    for (const Field& predictor : field["predictors"].list())
      bounds.predictors.push_back(parse_predictor(predictor, set, result, seen));
  }

  Predictor parse_predictor(const Field& field, std::size_t set, const Quantization& quantization,
                            const std::vector<float>& seen) const {
    field.only({"position", "alphas", "rows", "weight", "bias"});
    Predictor predictor;
    predictor.position = field["position"].string();
    require_value(predictor.position, field.where());
    const std::vector<Field> alphas = field["alphas"].list(kFeatureQuantiles);
    std::transform(alphas.begin(), alphas.end(), predictor.alphas.begin(), parse_alpha);
    for (const Field& row : field["rows"].list()) {
      PredictQParams::Row target;
      target.row = static_cast<int>(row_index(row, quantization.values.size()));
      const std::string& value = quantization.values[static_cast<std::size_t>(target.row)];
      QPP_CHECK(order_.at(value) >= order_.at(predictor.position), ModelError, row.where(),
                ": the value '", value, "' comes before the position '", predictor.position,
                "' that predicts it");
      predictor.rows.push_back(target);
    }
    predictor.fitted = field.has("weight");
    if (!predictor.fitted) return predictor;

    QPP_CHECK(!seen.empty(), ModelError, field.where(),
              ": a fitted predictor needs the tensor 'seen'");
    const std::size_t sets = quantization.bounds.size();
    const std::size_t outputs = 2 * predictor.rows.size();
    const std::vector<float> weight = matrix(field["weight"], sets * outputs, kFeatures);
    const std::vector<float> bias = matrix(field["bias"], sets * outputs, 0);
    for (std::size_t i = 0; i < predictor.rows.size(); ++i) {
      PredictQParams::Row& row = predictor.rows[i];
      const std::size_t lo = set * outputs + 2 * i;
      std::copy_n(&weight[lo * kFeatures], kFeatures, row.weight_lo.begin());
      std::copy_n(&weight[(lo + 1) * kFeatures], kFeatures, row.weight_hi.begin());
      row.bias_lo = bias[lo];
      row.bias_hi = bias[lo + 1];
      const std::size_t value =
          set * quantization.values.size() + static_cast<std::size_t>(row.row);
      const float* limits = &seen[4 * value];
      row.seen_lo = {.lo = limits[0], .hi = limits[1]};
      row.seen_hi = {.lo = limits[2], .hi = limits[3]};
      QPP_CHECK(limits[0] <= limits[1] && limits[2] <= limits[3], ModelError, field.where(),
                ": the range seen in calibration is empty");
    }
    return predictor;
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
      QPP_CHECK(density > last && density <= kLargestDensity, ModelError, item.where(),
                ": expected a density above ", last, " and up to ", kLargestDensity, ", got ",
                density);
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

  const Constants& constants_;
  const ValueOrder& order_;
};

}  // namespace

int Quantization::row(const std::string& value) const {
  const auto found = rows.find(value);
  return found == rows.end() ? -1 : found->second;
}

const Bounds* Quantization::find_bounds(std::optional<double> density) const {
  if (!density) return bounds.data();
  const auto found = std::find_if(bounds.begin(), bounds.end(), [&](const Bounds& set) {
    return std::abs(1 - set.alpha - *density) <= 1e-3 * *density;
  });
  return found == bounds.end() ? nullptr : &*found;
}

Quantization parse_quantization(const Field& field, const Constants& constants,
                                const ValueOrder& order,
                                const std::vector<std::string>& int8_values) {
  return Parser(constants, order).parse(field, int8_values);
}

}  // namespace qpp
