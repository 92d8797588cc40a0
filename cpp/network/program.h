// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "network/int8_plan.h"
#include "network/model.h"
#include "ops/operation.h"

namespace qpp {

/// Who writes the QP table. `measure` runs in fp16 and records what calibration needs: the bounds
/// that dynamic quantization would choose, and the features of every QPP position.
enum class Scheme : std::uint8_t { fp16, fixed, dynamic, qpp, measure };

struct ProgramOptions {
  Scheme scheme = Scheme::fp16;
  int activation_bits = 8;  // 2..8
  Algorithm algorithm = Algorithm::automatic;
  ResidualDType residual_dtype = ResidualDType::int8;
  std::optional<double> density;  // of dense + sparse values; empty: int8 only
};

/// "fp16", "static", "dynamic", "qpp" or "measure"; throws UnsupportedError.
Scheme parse_scheme(const std::string& name);

/// "int8" or "fp16"; throws UnsupportedError.
ResidualDType parse_residual_dtype(const std::string& name);

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
  std::string note;  // what explain() has to add, or ""
};

/// A model lowered for one scheme: operations in order, over named buffers.
struct Program {
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::vector<int> inputs;   // fp16 buffers, in the order of the model's inputs
  std::vector<int> outputs;  // fp16 buffers
  /// Dense + sparse values that share the row of another value begin with a copy of it. These rows
  /// follow those of the quantized values in the QP table; of each, the row it is copied from.
  std::vector<int> copied_rows;
  std::int64_t value_elements = Limits().value_elements;  // that a value may have
};

/// Decides for every value whether it exists as fp16, int8 or both, who writes its row, and which
/// kernels run. Convolutions whose int8 sums could leave int32 read fp16, and their steps have a
/// note. Throws UnsupportedError when the file lacks what the scheme needs.
///
/// With a density, int8 values carry outliers: convolutions of one group read and write dense +
/// sparse values, everything else reads fp16, which is kept as well. The bounds are then those that
/// a share `density` of a value's elements lies beyond, at either end.
Program lower(const Model& model, const ProgramOptions& options, const KernelSelection& selection);

}  // namespace qpp
