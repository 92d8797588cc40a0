// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "ops/features.h"
#include "ops/op.h"

namespace qpp {

/// The lowest and highest bounds of a value over the calibration set.
struct CalibratedRange {
  Range lo;
  Range hi;
};

/// QPP: predicts the bounds of values from features, by the paper's linear regressor: bound = bias
/// + sum over features of weight * feature. With a logarithmic transform that is log2 of a
/// magnitude m, and the bound is -m or m, or 0 up to kMinMagnitude. Bounds are clamped to the
/// calibrated range, and counted where that changes them. Where both bounds of a value are then
/// zero, though not in calibration, they are the widest of calibration instead, and counted.
class PredictQParams final : public Op {
 public:
  struct Target {
    int row = -1;  // of the QP table
    CalibratedRange calibrated_range;
  };
  struct Spec {
    std::vector<Target> targets;
    std::size_t first_slot = 0;  // of the features in RunState::features
    std::vector<float> weight;   // [2 * targets, features]: lo, hi of the first target, ...
    std::vector<float> bias;     // [2 * targets]
    Transform transform = Transform::identity;
    int bits = 8;
  };
  explicit PredictQParams(Spec spec) : spec_(std::move(spec)) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "predict_qparams"; }
  [[nodiscard]] std::size_t weight_bytes() const override;

 private:
  /// Bounds of one target, before they are clamped.
  [[nodiscard]] Range predict(std::size_t target, std::span<const float> features) const;

  Spec spec_;
};

}  // namespace qpp
