// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "kernels/select.h"
#include "ops/activation.h"
#include "ops/operation.h"

namespace qpp {

enum class BinaryKind : std::uint8_t { add, sub, mul };

/// "add", "sub" or "mul".
const char* name_of(BinaryKind kind);

struct BinarySpec {
  static constexpr InputCount kInputs{.min = 2, .max = 2};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  BinaryKind kind = BinaryKind::add;
  ActivationSpec activation;  // a clamp
};

/// How one scheme runs a binary operation: both sources have one element type.
struct BinaryTypes {
  DType src = DType::f16;
  DType dst = DType::f16;
  int a_row = -1;  // rows of int8 sources and of an int8 destination
  int b_row = -1;
  int dst_row = -1;
};

/// Sum, difference or product of two tensors, element by element, with a clamp. The second may be
/// [N, C, 1, 1]: one number for all pixels of a channel.
class Binary final : public Op {
 public:
  Binary(const BinarySpec& spec, const BinaryTypes& types, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return name_of(spec_.kind); }
  [[nodiscard]] bool runs_in_place(std::size_t /*input*/) const override { return true; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  [[nodiscard]] BinaryArgs constants(const RunState& state) const;

  BinarySpec spec_;
  BinaryTypes types_;
  const BinaryKernel* kernel_;
};

}  // namespace qpp
