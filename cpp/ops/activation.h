// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// An activation function: a clamp (ReLU is the clamp to [0, inf), none the clamp to everything) or
/// tanh.
struct ActivationSpec {
  Nonlinearity nonlinearity = Nonlinearity::clamp;
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
};

/// A function that only stands alone.
struct FunctionSpec {
  std::string name;
  Function function = Function::clamp;
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  std::vector<float> slopes;  // prelu: one, or one per channel
};

/// An activation that stands alone; behind a convolution it is part of the output stage.
class Activation final : public Op {
 public:
  Activation(const ActivationSpec& activation, const KernelSelection& selection);
  Activation(FunctionSpec spec, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "activation"; }
  [[nodiscard]] bool runs_in_place(std::size_t /*input*/) const override { return true; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  FunctionSpec spec_;
  const ActivationKernel* kernel_;
  AlignedVector<float> slopes_;  // [channels, padded], of prelu
};

}  // namespace qpp
