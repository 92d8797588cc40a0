// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/op.h"
#include "ops/statistics.h"

namespace qpp {

/// Statistics of a value that a predictor may read. Names are those of model files.
enum class FeatureKind : std::uint8_t { quantile, mean, std, min, max, absmax };
inline constexpr const char* kFeatureKinds[] = {"quantile", "mean", "std", "min", "max", "absmax"};

/// Applied to a feature before a predictor reads it, and undone on the bounds that it predicts.
/// `log` is the logarithm to base 2 of a magnitude, at least kMinMagnitude.
enum class Transform : std::uint8_t { identity, log };
inline constexpr const char* kTransforms[] = {"identity", "log"};
inline constexpr float kMinMagnitude = 0x1p-24F;  // the smallest positive half

struct FeatureSpec {
  FeatureKind kind = FeatureKind::mean;
  double alpha = 1;  // of a quantile
  Transform transform = Transform::identity;
};

/// Measures features of one value.
class MeasureFeatures final : public Op {
 public:
  struct Target {
    FeatureSpec feature;
    std::size_t slot = 0;  // of RunState::features, where it is written to
  };
  struct Spec {
    std::string value;
    std::vector<Target> targets;
  };
  MeasureFeatures(Spec spec, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override { return lay_out(nullptr).bytes; }
  /// Throws NonFiniteError when the value holds NaN or infinity.
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "measure_features"; }
  [[nodiscard]] std::string kernel() const override;

 private:
  struct Scratch {
    float* quantiles;  // of all alphas_
    std::byte* scan;
    std::size_t bytes;
  };
  [[nodiscard]] Scratch lay_out(std::byte* base) const;
  [[nodiscard]] bool measures(FeatureKind kind) const;
  /// Writes the quantiles of all alphas_.
  void measure_quantiles(const TensorView& view, const Scratch& scratch) const;
  [[nodiscard]] std::size_t index_of(double alpha) const;

  Spec spec_;
  std::vector<double> alphas_;  // of the quantiles to measure; 0 and 1 are min and max
  bool scans_ = false;          // some alpha is neither
  const MinMaxKernel* minmax_;
  const MeanKernel* mean_;
  const DeviationKernel* deviation_;
  QuantileScan quantile_;
  Shape shape_;
};

}  // namespace qpp
