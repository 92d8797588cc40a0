// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// Statistics of a QPP position that its predictor sees: three alpha-quantiles, mean and max, in
/// this order.
inline constexpr std::int64_t kFeatureQuantiles = 3;
inline constexpr std::int64_t kFeatures = kFeatureQuantiles + 2;

/// Rank (0 is the smallest) of the alpha-quantile of `count` elements: ceil(alpha * count) - 1.
std::int64_t quantile_rank(double alpha, std::int64_t count);

/// Exact alpha-quantiles of tensors that hold one value of the network.
class QuantileScan {
 public:
  explicit QuantileScan(const KernelSelection& selection) : kernel_(&selection.quantile()) {}
  [[nodiscard]] static std::size_t scratch_bytes(const Shape& shape);
  void run(const TensorView& src, std::span<const std::int64_t> ranks, float* values,
           std::byte* scratch) const;
  [[nodiscard]] const char* name() const { return kernel_->info.name; }

 private:
  const QuantileKernel* kernel_;
};

/// Dynamic quantization: rows of the QP table from the value itself. The bounds of a row are the
/// value's alpha-quantiles from both ends, hi = Q(x), lo = -Q(-x); at alpha = 1 they are its
/// smallest and largest element. A quantile that would cut everything on its side of zero, such as
/// that of a few lit pixels on black, gives way to the extreme, but reaches no further than the
/// other bound, unless that is zero as well: it costs one bit at most. Such bounds are counted. A
/// run needs one row; calibration measures several alphas at once.
class ChooseQParams final : public Op {
 public:
  struct Target {
    int row = -1;
    double alpha = 1;
  };
  struct Spec {
    std::string value;
    std::vector<Target> targets;
    int bits = 8;
    bool range_measured = false;  // the producer's epilogue has filled the first row's range
  };
  ChooseQParams(Spec spec, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  /// Throws NonFiniteError when the value holds NaN or infinity.
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "choose_qparams"; }
  [[nodiscard]] std::string kernel() const override;

 private:
  Spec spec_;
  bool scans_;  // an alpha below 1 is among the targets
  const MinMaxKernel* minmax_;
  QuantileScan quantile_;
  Shape shape_;
};

/// Gives a value a row of its own, which begins as that of another value: dense + sparse values may
/// change theirs when they are stored, which is not to change what was stored before.
class CopyQParams final : public Op {
 public:
  CopyQParams(int from, int to) : from_(from), to_(to) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "copy_qparams"; }

 private:
  int from_;
  int to_;
};

/// The features of a QPP position.
class MeasureFeatures final : public Op {
 public:
  struct Spec {
    std::string value;
    int position = 0;
    std::array<double, kFeatureQuantiles> alphas{};
  };
  MeasureFeatures(Spec spec, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  /// Throws NonFiniteError when the value holds NaN or infinity.
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "measure_features"; }
  [[nodiscard]] std::string kernel() const override { return quantile_.name(); }

 private:
  Spec spec_;
  const MinMaxKernel* minmax_;
  const MeanKernel* mean_;
  QuantileScan quantile_;
  Shape shape_;
};

/// QPP: predicts, from a position's features, the bounds of the values that follow it (the paper's
/// linear regressor): bound = bias + sum over features of weight * feature, cut to the range that
/// the bound had in calibration. Where both bounds of a value are then zero, though it was not in
/// calibration, they are the widest of calibration instead, and counted.
class PredictQParams final : public Op {
 public:
  struct Row {
    int row = -1;
    std::array<float, kFeatures> weight_lo{};
    std::array<float, kFeatures> weight_hi{};
    float bias_lo = 0;
    float bias_hi = 0;
    Range seen_lo;  // over the calibration set
    Range seen_hi;
  };
  PredictQParams(int position, std::vector<Row> rows, int bits);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "predict_qparams"; }
  [[nodiscard]] std::size_t weight_bytes() const override { return rows_.size() * sizeof(Row); }

 private:
  int position_;
  std::vector<Row> rows_;
  int bits_;
};

}  // namespace qpp
