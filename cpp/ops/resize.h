// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/geometry.h"
#include "ops/operation.h"

namespace qpp {

enum class ResizeMode : std::uint8_t { nearest, nearest_exact, bilinear };

/// Either the output's size or its ratio to the input's.
struct ResizeSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  ResizeMode mode = ResizeMode::nearest;
  bool align_corners = false;  // bilinear: corner pixels keep their places
  std::optional<Size2d> size;
  double scale_height = 1;
  double scale_width = 1;
  // As PyTorch does whatever the scale is: an axis whose size does not change is copied, and
  // nearest repeats each pixel of an axis that becomes twice as long.
  bool snap_scale = false;
};

/// Enlarges or reduces images as torch.nn.functional.interpolate. Keeps element type and row.
class Resize final : public Op {
 public:
  Resize(ResizeSpec spec, DType dtype, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "resize"; }
  [[nodiscard]] std::string kernel() const override;

 private:
  void weigh_corners();
  void run_group(const RunArgs& args, std::int64_t image, std::int64_t first,
                 std::int64_t last) const;

  ResizeSpec spec_;
  DType dtype_;
  const ResizeKernel* kernel_;
  Shape input_;
  Shape output_;
  std::vector<ResizeTap> rows_;
  std::vector<ResizeTap> columns_;
  std::vector<std::uint8_t> corner_weights_;      // of int8, see ResizeArgs
  std::vector<const std::uint8_t*> row_corners_;  // those of every output row
  std::vector<std::int64_t> groups_;  // first output rows of those between the same source rows
};

}  // namespace qpp
