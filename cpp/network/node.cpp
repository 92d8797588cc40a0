// SPDX-License-Identifier: Apache-2.0
#include "network/node.h"

#include "base/json_field.h"

namespace qpp {

Node parse_node_structure(const Field& field) {
  Node node;
  node.op = field["op"].string();
  node.name = field["name"].string();
  node.inputs = field["inputs"].strings();
  node.output = field["output"].string();
  node.fp16 = field.has("fp16") && field["fp16"].boolean();
  return node;
}

}  // namespace qpp
