// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/geometry.h"
#include "ops/operation.h"

namespace qpp {

enum class PoolKind : std::uint8_t { max, average };

struct PoolSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  PoolKind kind = PoolKind::max;
  Size2d kernel{};
  Size2d stride{};
  Padding padding{};
  Size2d dilation{};  // maximum only
  bool ceil_mode = false;
  bool count_include_pad = true;                       // average: padding counts as zeros
  std::optional<std::int64_t> divisor = std::nullopt;  // average: of the sum, instead of the count
  std::optional<Size2d> size =
      std::nullopt;  // of the output, which makes the windows; the rest is not used
};

/// The extent of a window along one axis.
struct PoolSpan {
  std::int64_t first;   // element inside the image
  std::int64_t length;  // number of elements there
  std::int64_t padded;  // the same inside the padded image
};

/// How one scheme runs a pool. The maximum keeps element type and row.
struct PoolTypes {
  DType src = DType::f16;
  DType dst = DType::f16;
  int src_row = -1;
  int dst_row = -1;
};

/// Windows over an image, as PyTorch's max_pool2d, avg_pool2d and their adaptive kin.
class Pool final : public Op {
 public:
  Pool(const PoolSpec& spec, const PoolTypes& types, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override;
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  class Rows;

  PoolSpec spec_;
  PoolTypes types_;
  const PoolKernel* kernel_;
  Shape input_;
  Shape output_;
  std::vector<PoolSpan> rows_;     // per row of the output
  std::vector<PoolSpan> columns_;  // per column
  std::int64_t stride_ = 1;        // of most windows of a row
  std::int64_t max_sources_ = 0;   // of a window
  int threads_ = 1;
};

}  // namespace qpp
