// SPDX-License-Identifier: Apache-2.0
//
// Scheme "qpp": per sample, linear regressors predict bounds from features of earlier values.

#include "network/qparams_source.h"

namespace qpp {
namespace {

class QppSource final : public QParamsSource {
 public:
  QppSource(const Quantization& quantization, const Bounds& bounds, int bits)
      : features_(quantization.feature_targets()) {
    for (std::size_t i = 0; i < quantization.predictors.size(); ++i) {
      const Predictor& predictor = quantization.predictors[i];
      PredictQParams::Spec spec{.targets = {},
                                .first_slot = i * quantization.feature_columns(),
                                .weight = bounds.regressors[i].weight,
                                .bias = bounds.regressors[i].bias,
                                .transform = predictor.target_transform,
                                .bits = bits};
      for (const int row : predictor.rows) {
        spec.targets.push_back(
            {.row = row,
             .calibrated_range = bounds.calibrated_range[static_cast<std::size_t>(row)]});
      }
      predictions_[predictor.last_source].push_back(std::move(spec));
    }
  }

  [[nodiscard]] bool reads(const ValueInfo& value) const override {
    return features_.contains(value.name);
  }

  /// Measures features, and predicts as soon as the last feature of a predictor is known.
  [[nodiscard]] std::vector<SourceStep> steps_after(const ValueInfo& value, bool /*range_measured*/,
                                                    const KernelSelection& kernels) const override {
    std::vector<SourceStep> steps;
    steps.push_back({std::make_unique<MeasureFeatures>(
        MeasureFeatures::Spec{.value = value.name, .targets = features_.at(value.name)}, kernels)});
    const auto predictions = predictions_.find(value.name);
    if (predictions == predictions_.end()) return steps;
    for (const PredictQParams::Spec& spec : predictions->second)
      steps.push_back({std::make_unique<PredictQParams>(spec), /*reads_value=*/false});
    return steps;
  }

  void report(const QpTable& table, SessionStats& stats) const override {
    stats.predictions = stats.samples * static_cast<std::int64_t>(table.values);
    stats.clamped_predictions = table.by_value(table.clamped_predictions);
  }

 private:
  FeatureTargets features_;
  std::map<std::string, std::vector<PredictQParams::Spec>> predictions_;  // by their last source
};

}  // namespace

std::unique_ptr<QParamsSource> make_qpp_source(const Model& model, const SessionOptions& options) {
  const Bounds& bounds = require_bounds(model, options);
  QPP_CHECK(bounds.regressors.size() == model.quantization->predictors.size(), UnsupportedError,
            "model '", model.name, "': scheme \"qpp\" needs fitted predictors, the file has none");
  return std::make_unique<QppSource>(*model.quantization, bounds, options.activation_bits);
}

}  // namespace qpp
