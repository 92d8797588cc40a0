// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/select.h"
#include "ops/conv2d.h"

namespace qpp {

enum class PoolKind : std::uint8_t { max, average, global_average };

struct PoolSpec {
  std::string name;
  PoolKind kind = PoolKind::max;
  Size2d kernel;  // the last four: not of a global average, whose window is the image
  Size2d stride;
  Size2d padding{.height = 0, .width = 0};
  bool ceil_mode = false;
  bool count_include_pad = true;  // average: padding counts as zeros
};

/// How one scheme runs a pool. The maximum keeps element type and row.
struct PoolTypes {
  DType src = DType::f16;
  DType dst = DType::f16;
  int src_row = -1;
  int dst_row = -1;
};

/// Windows over an image, as PyTorch's max_pool2d, avg_pool2d and mean over all pixels.
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

  PoolSpec spec_;  // of a global average, with the prepared image as kernel
  PoolTypes types_;
  const PoolKernel* kernel_;
  Shape input_;
  Shape output_;
  int threads_ = 1;
};

}  // namespace qpp
