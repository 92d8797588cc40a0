// SPDX-License-Identifier: Apache-2.0
#include "network/int8_plan.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/json_field.h"
#include "base/json_reader.h"

namespace qpp {
namespace {

/// In the order of definition. Values that no node defines are inputs of the graph.
std::vector<std::string> values_of(std::span<const Node> nodes) {
  std::set<std::string> defined;
  for (const Node& node : nodes) defined.insert(node.output);
  std::vector<std::string> values;
  for (const Node& node : nodes) {
    for (const std::string& input : node.inputs) {
      if (defined.insert(input).second) values.push_back(input);
    }
  }
  for (const Node& node : nodes) values.push_back(node.output);
  return values;
}

}  // namespace

std::vector<std::size_t> count_int8_inputs(std::span<const Node> nodes, ResidualDType residuals) {
  const bool fp16_residuals = residuals == ResidualDType::fp16;
  std::vector<std::size_t> counts(nodes.size());
  std::set<std::string> in_int8;      // values that later nodes read in int8
  std::set<std::string> to_residual;  // values on their way to a residual
  for (std::size_t i = nodes.size(); i-- > 0;) {
    const Node& node = nodes[i];
    const Int8Role role = node.int8.role;
    const bool leads_to_residual =
        role == Int8Role::shares_qparams && to_residual.contains(node.output);
    const std::size_t before_residual =
        leads_to_residual ? 0 : std::min(node.int8.first_residual, node.inputs.size());
    const bool follows = role != Int8Role::fp16 && in_int8.contains(node.output);
    const bool reads = !node.fp16 && (follows || role == Int8Role::requests);
    if (reads) counts[i] = follows && !fp16_residuals ? node.inputs.size() : before_residual;
    in_int8.insert(node.inputs.begin(),
                   node.inputs.begin() + static_cast<std::ptrdiff_t>(counts[i]));
    if (fp16_residuals && (reads || before_residual == 0)) {
      to_residual.insert(node.inputs.begin() + static_cast<std::ptrdiff_t>(before_residual),
                         node.inputs.end());
    }
  }
  return counts;
}

Int8Plan plan_int8(std::span<const Node> nodes) {
  Int8Plan plan;
  plan.int8_inputs = count_int8_inputs(nodes, ResidualDType::int8);
  std::set<std::string> in_int8;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    const auto end = node.inputs.begin() + static_cast<std::ptrdiff_t>(plan.int8_inputs[i]);
    in_int8.insert(node.inputs.begin(), end);
    if (node.int8.role != Int8Role::shares_qparams || plan.int8_inputs[i] == 0) continue;
    const auto group = plan.groups.find(node.inputs[0]);
    plan.groups[node.output] = group == plan.groups.end() ? node.inputs[0] : group->second;
  }
  for (const std::string& value : values_of(nodes)) {
    if (!in_int8.contains(value)) continue;
    if (plan.groups.emplace(value, value).first->second == value) plan.values.push_back(value);
  }
  return plan;
}

Int8Plan plan_int8_of_json(std::string_view nodes, const Limits& limits) {
  const std::string where = "plan_int8";
  std::vector<Node> parsed;
  // Nodes are read one by one, and none is kept as JSON.
  const auto read = [&](const std::string& /*member*/, const nlohmann::json& item) {
    const Field field(item, concat(where, ".nodes[", parsed.size(), "]"));
    Node node = parse_node_structure(field);
    TensorShapes shapes;
    for (const auto& [role, sizes] : field["tensor_shapes"].members()) {
      for (const Field& size : sizes.list())
        shapes[role].push_back(size.integer(0, limits.dimension));
    }
    const Field attributes = field["attributes"];
    if (const OpSchema* schema = find_op_schema(node.op)) {
      node.int8 =
          schema->int8_trait({.op = node.op, .attributes = attributes, .tensor_shapes = shapes});
    }
    parsed.push_back(std::move(node));
    return false;
  };
  parse_json(concat("{\"nodes\":", nodes, "}"), where, limits, {.depth = 2, .keep = read});
  return plan_int8(parsed);
}

}  // namespace qpp
