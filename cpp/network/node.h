// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "ops/operation.h"

namespace qpp {

/// A node of the graph. Values have the name of the node output or graph input that defines them.
struct Node {
  std::string op;
  std::string name;
  std::vector<std::string> inputs;
  std::string output;
  bool fp16 = false;  // reads fp16 in quantized runs, too
  Int8Trait int8;
  Operation operation;
};

/// Reads all but the trait and the operation. Throws ModelError.
Node parse_node_structure(const Field& field);

}  // namespace qpp
