// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/operation.h"

namespace qpp {

/// Joins the channels of any number of inputs.
struct ConcatSpec {
  static constexpr InputCount kInputs{.max = InputCount::kAny};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);
};

/// How one scheme runs a concatenation.
struct ConcatTypes {
  DType src = DType::f16;
  DType dst = DType::f16;
  std::vector<int> src_rows;  // of int8 sources
  int dst_row = -1;
};

/// Concatenates the channels of all inputs. int8 inputs are requantized to the output's row.
class Concat final : public Op {
 public:
  Concat(std::string name, ConcatTypes types, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "concat"; }
  [[nodiscard]] std::string kernel() const override;

 private:
  /// Elements of `count` successive pixels of an input, in the type and row of the output: in
  /// place, or converted to `scratch`.
  const std::byte* convert(const RunArgs& args, const RunState& state, std::size_t input,
                           std::int64_t pixel, std::int64_t count, std::byte* scratch) const;

  std::string name_;
  ConcatTypes types_;
  const RequantizeKernel* requantize_;
  const DequantizeKernel* dequantize_;
  Shape output_;
  std::int64_t block_ = 1;       // pixels that are converted at once
  std::size_t block_bytes_ = 0;  // of scratch, for each thread
  int threads_ = 1;
};

}  // namespace qpp
