// SPDX-License-Identifier: Apache-2.0
//
// Scheme "calibration": runs in fp16, and measures the bounds that "dynamic" would choose for every
// alpha, and the features of all predictors.

#include "network/qparams_source.h"
#include "ops/statistics.h"

namespace qpp {
namespace {

class CalibrationSource final : public QParamsSource {
 public:
  CalibrationSource(const Quantization& quantization, int bits)
      : features_(quantization.feature_targets()),
        values_(quantization.values.size()),
        bits_(bits) {
    for (const Bounds& bounds : quantization.bounds) alphas_.push_back(bounds.alpha);
  }

  [[nodiscard]] bool quantizes() const override { return false; }
  [[nodiscard]] std::size_t table_count() const override { return alphas_.size(); }
  [[nodiscard]] bool reads(const ValueInfo& value) const override {
    return value.row >= 0 || features_.contains(value.name);
  }
  [[nodiscard]] bool reads_range(const ValueInfo& value) const override { return value.row >= 0; }

  [[nodiscard]] std::vector<SourceStep> steps_after(const ValueInfo& value, bool range_measured,
                                                    const KernelSelection& kernels) const override {
    std::vector<SourceStep> steps;
    const auto features = features_.find(value.name);
    if (features != features_.end()) {
      steps.push_back({std::make_unique<MeasureFeatures>(
          MeasureFeatures::Spec{.value = value.name, .targets = features->second}, kernels)});
    }
    if (value.row < 0) return steps;
    ChooseQParams::Spec spec{
        .value = value.name, .targets = {}, .bits = bits_, .range_measured = range_measured};
    for (std::size_t table = 0; table < alphas_.size(); ++table) {
      spec.targets.push_back(
          {.row = value.row + static_cast<int>(table * values_), .alpha = alphas_[table]});
    }
    steps.push_back({std::make_unique<ChooseQParams>(std::move(spec), kernels)});
    return steps;
  }

 private:
  FeatureTargets features_;
  std::size_t values_;
  std::vector<double> alphas_;  // one table each
  int bits_;
};

}  // namespace

std::unique_ptr<QParamsSource> make_calibration_source(const Model& model,
                                                       const SessionOptions& options) {
  return std::make_unique<CalibrationSource>(require_quantization(model), options.activation_bits);
}

}  // namespace qpp
