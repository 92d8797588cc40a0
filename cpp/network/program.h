// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "network/int8_plan.h"
#include "network/model.h"
#include "ops/operation.h"

namespace qpp {

class QParamsSource;

struct ProgramOptions {
  const QParamsSource* source = nullptr;  // of the QP table; null: nothing is quantized
  Algorithm algorithm = Algorithm::automatic;
  ResidualDType residual_dtype = ResidualDType::int8;
  bool dense_sparse = false;  // int8 values have outliers
};

/// A value in one element type.
struct Buffer {
  std::string value;
  DType dtype = DType::f16;
  int row = -1;         // of the QP table, where it is int8
  bool sparse = false;  // an int8 value with outliers
};

/// One operation and the buffers it reads and writes.
struct Step {
  std::string node;  // of the graph, or the value that it belongs to
  std::unique_ptr<Op> op;
  std::vector<int> inputs;
  int output = -1;   // -1: writes rows of the QP table only
  std::string note;  // a note of explain(), or ""
};

/// A model lowered for one source of the QP table: operations in order, over named buffers.
struct Program {
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::vector<int> inputs;   // fp16 buffers, in the order of the model's inputs
  std::vector<int> outputs;  // fp16 buffers
  /// Dense + sparse values that have the row of another value begin with a copy of it. These rows
  /// follow those of the quantized values in the QP table; of each, the row it is copied from.
  std::vector<int> copied_rows;
  std::int64_t value_elements = Limits().value_elements;  // that a value may have
};

/// Decides for every value whether it exists as fp16, int8 or both, and makes the operations. Nodes
/// that cannot read int8 as planned read fp16, and their steps have a note.
///
/// Dense + sparse: operations that also quantize read and write int8 values with outliers, all
/// others read fp16, which is kept as well.
Program lower(const Model& model, const ProgramOptions& options, const KernelSelection& selection);

}  // namespace qpp
