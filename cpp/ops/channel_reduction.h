// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "ops/operation.h"

namespace qpp {

enum class ChannelReductionKind : std::uint8_t { softmax, log_softmax, argmax };

struct ChannelReductionSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  ChannelReductionKind kind = ChannelReductionKind::softmax;
};

/// Reduces the channels of every pixel, in fp16: softmax, its logarithm, or the index of the first
/// maximum. Sums are floats.
class ChannelReduction final : public Op {
 public:
  explicit ChannelReduction(ChannelReductionSpec spec) : spec_(std::move(spec)) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override;

 private:
  ChannelReductionSpec spec_;
};

}  // namespace qpp
