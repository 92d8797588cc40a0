// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>

#include "ops/op.h"

namespace qpp {

/// An activation function: a clamp (ReLU is the clamp to [0, inf), none the clamp to everything) or
/// tanh.
struct ActivationSpec {
  Nonlinearity nonlinearity = Nonlinearity::clamp;
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
};

/// An activation that stands alone; behind a convolution it is part of the output stage.
class Activation final : public Op {
 public:
  explicit Activation(const ActivationSpec& activation) : activation_(activation) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "activation"; }

 private:
  ActivationSpec activation_;
};

}  // namespace qpp
