// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/geometry.h"
#include "ops/operation.h"

namespace qpp {

/// One element in `step` of an axis, from `start` on and before `stop`, which count from the end
/// where they are negative.
struct SliceSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  int axis = 1;  // of NCHW; not the batch
  std::int64_t start = 0;
  std::optional<std::int64_t> stop;
  std::int64_t step = 1;
};

enum class PadMode : std::uint8_t { zeros, reflect, replicate };

/// Adds pixels around images: zeros, the reflected inner pixels, or copies of the border pixels.
/// Negative numbers remove pixels.
struct PadSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  PadMode mode = PadMode::zeros;
  Padding padding;
};

/// Selects rows, columns and channels of an image, or zeros. Keeps element type and row.
class SlicePad final : public Op {
 public:
  /// `row` is that of an int8 source.
  SlicePad(std::variant<SliceSpec, PadSpec> spec, DType dtype, int row);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override;

 private:
  /// The source of every element of an axis; kZero where there is none.
  using Sources = std::vector<std::int64_t>;
  static constexpr std::int64_t kZero = -1;
  static Sources slice(const SliceSpec& spec, std::int64_t size);
  static Sources pad(PadMode mode, std::int64_t before, std::int64_t after, std::int64_t size);

  std::variant<SliceSpec, PadSpec> spec_;
  DType dtype_;
  int row_;
  Shape input_;
  Shape output_;
  Sources rows_;
  Sources columns_;
  Sources channels_;
};

}  // namespace qpp
