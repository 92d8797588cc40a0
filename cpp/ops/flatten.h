// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ops/op.h"

namespace qpp {

/// [N, C, H, W] to [N, C * H * W, 1, 1] in the order of torch.flatten.
class Flatten final : public Op {
 public:
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "flatten"; }
};

}  // namespace qpp
