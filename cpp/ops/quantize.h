// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// fp16 to int8 with the value's row of the QP table.
class Quantize final : public Op {
 public:
  Quantize(int row, const KernelSelection& selection) : row_(row), kernel_(&selection.quantize()) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "quantize"; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  int row_;
  const QuantizeKernel* kernel_;
};

/// int8 to fp16 with the value's row of the QP table.
class Dequantize final : public Op {
 public:
  Dequantize(int row, const KernelSelection& selection)
      : row_(row), kernel_(&selection.dequantize()) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "dequantize"; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  int row_;
  const DequantizeKernel* kernel_;
};

}  // namespace qpp
