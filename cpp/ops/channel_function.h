// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "ops/op.h"

namespace qpp {

enum class ChannelFunction : std::uint8_t { softmax, log_softmax, argmax };

struct ChannelFunctionSpec {
  std::string name;
  ChannelFunction function = ChannelFunction::softmax;
};

/// What a network's head makes of the channels of every pixel, in fp16: the softmax, its logarithm,
/// or the index of the first largest one. Sums are floats.
class OverChannels final : public Op {
 public:
  explicit OverChannels(ChannelFunctionSpec spec) : spec_(std::move(spec)) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override;

 private:
  ChannelFunctionSpec spec_;
};

}  // namespace qpp
