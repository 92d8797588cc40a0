// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "kernels/select.h"
#include "ops/op.h"
#include "tensor/constants.h"

namespace qpp {

class Field;

/// How convolutions are computed: `direct` by sums of products, `winograd` by Winograd's algorithm
/// where it applies. `automatic` takes the cheaper one according to ops/conv_costs.inc.
enum class Algorithm : std::uint8_t { automatic, direct, winograd };

/// Whether a node reads int8 in a quantized run. network/int8_plan.h applies this to a graph.
enum class Int8Role : std::uint8_t {
  fp16,            // never
  propagates,      // where its output is read in int8
  shares_qparams,  // likewise; its int8 output has the quantization parameters of its input
  requests,        // always
};

struct Int8Trait {
  static constexpr std::size_t kNoResidual = std::numeric_limits<std::size_t>::max();

  Int8Role role = Int8Role::fp16;
  /// The first input that is a residual: an operand of a sum. Residuals are read in int8 only where
  /// the sum is read in int8, and never with residuals in fp16.
  std::size_t first_residual = kNoResidual;
};

using TensorShapes = std::map<std::string, std::vector<std::int64_t>>;  // by role

/// The part of a node that decides on its trait: no values of constants.
struct NodeSignature {
  const std::string& op;
  const Field& attributes;
  const TensorShapes& tensor_shapes;
};

/// A node of a model file, as its operation reads it.
struct NodeFields {
  const std::string& op;
  const std::string& name;
  std::size_t input_count;
  const Field& attributes;
  const Field& tensors;      // names in the file, by their role
  const std::string& where;  // begins messages
  const Limits& limits;
  Constants& constants;

  [[nodiscard]] const Tensor& tensor(const char* role) const;
  /// Throws UnsupportedError where the node has any attributes or tensors.
  void expect_no_attributes() const;
  void expect_no_tensors() const;
};

/// How a scheme stores an operand.
struct OperandType {
  DType dtype = DType::f16;
  int row = -1;         // of the QP table, where it is int8
  bool sparse = false;  // an int8 operand with outliers
};

/// The operands of an operation as one scheme stores them.
struct OpTypes {
  std::vector<OperandType> inputs;
  OperandType output;
  int range_row = -1;  // of the QP table: where the range of an fp16 output is written, or -1
};

struct OpContext {
  const KernelSelection& selection;
  Algorithm algorithm = Algorithm::automatic;
};

/// The operation of a node, parsed and checked, before a scheme decides on types.
struct Operation {
  std::function<std::unique_ptr<Op>(const OpTypes&, const OpContext&)> make;
  bool quantizes_fp16 = false;  // can read fp16 and store int8, also with outliers
  bool measures_range = false;  // can write OpTypes::range_row
  /// Why it cannot read int8, in spite of its trait; empty: it can.
  std::optional<std::string> int8_obstacle = std::nullopt;
};

struct InputCount {
  static constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();

  std::size_t min = 1;
  std::size_t max = 1;
};

/// A row of ops/op_table.inc: how nodes with the name of an operation are read.
struct OpSchema {
  InputCount inputs;
  Int8Trait (*int8_trait)(const NodeSignature&);
  Operation (*parse)(const NodeFields&);  // throws ModelError or UnsupportedError
};

/// Null for an unknown operation.
const OpSchema* find_op_schema(const std::string& op);

}  // namespace qpp
