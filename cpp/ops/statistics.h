// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// The elements of a view, as kernels read them.
StatisticsSource statistics_source(const TensorView& view);

/// Throws NonFiniteError, which names the value, unless both extremes are finite.
void check_finite(const Range& extremes, const std::string& value);

/// Whether a row of these bounds has a level for zero only.
inline bool holds_only_zero(const Range& bounds) { return bounds.lo >= 0 && bounds.hi <= 0; }

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
/// smallest and largest element. A quantile that would clip everything on its side of zero, such as
/// that of a few bright pixels on black, is replaced by the extreme, limited to the magnitude of
/// the other bound unless that is zero: this costs at most one bit. Such bounds are counted. A run
/// needs one row; calibration measures several alphas at once.
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
/// change theirs when they are stored, which must not change values stored before.
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

}  // namespace qpp
