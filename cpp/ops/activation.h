// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/operation.h"

namespace qpp {

/// An activation function: a clamp (ReLU is the clamp to [0, inf), none the clamp to everything) or
/// tanh.
struct ActivationSpec {
  Nonlinearity nonlinearity = Nonlinearity::clamp;
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
};

/// From the attributes "activation" and "clamp".
ActivationSpec parse_activation(const Field& attributes);

/// A unary activation: a function of every element, as an operation of its own.
struct UnarySpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  UnaryActivation function = UnaryActivation::clamp;
  float a = 0;  // its numbers
  float b = 0;
  std::vector<float> slopes;  // prelu: one, or one per channel
};

/// Computes a unary activation. Activations after convolutions are part of the output stage.
class Activation final : public Op {
 public:
  Activation(UnarySpec spec, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "activation"; }
  [[nodiscard]] bool runs_in_place(std::size_t /*input*/) const override { return true; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  UnarySpec spec_;
  const ActivationKernel* kernel_;
  AlignedVector<float> slopes_;  // [channels, padded], of prelu
};

}  // namespace qpp
