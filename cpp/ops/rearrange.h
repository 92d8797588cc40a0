// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/operation.h"

namespace qpp {

/// The dimensions to which an image, in the order of CHW, is reshaped, and the order in which
/// these are then permuted. Dynamic are the last two, which are those of the image, or the only
/// one, which takes all elements.
struct RearrangeSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  std::vector<std::optional<std::int64_t>> view;
  std::vector<int> order;
};

/// Reshapes and transposes images. Of more than three dimensions the first are merged, less than
/// three are followed by ones. Keeps element type and row.
class Rearrange final : public Op {
 public:
  Rearrange(RearrangeSpec spec, DType dtype);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override;

 private:
  [[nodiscard]] std::vector<std::int64_t> sizes_of(const Shape& input) const;

  RearrangeSpec spec_;
  DType dtype_;
  Shape output_;
  std::vector<std::int32_t> sources_;  // of an output's elements, [H][W][C], in the input's image
};

}  // namespace qpp
