// SPDX-License-Identifier: Apache-2.0
#include "network/model.h"

#include <nlohmann/json.hpp>

#include "base/json_field.h"
#include "base/json_reader.h"
#include "network/int8_plan.h"
#include "network/safetensors.h"
#include "tensor/constants.h"

namespace qpp {
namespace {

class Parser {
 public:
  Parser(const ModelFile& file, std::string source, const Limits& limits)
      : file_(file),
        source_(std::move(source)),
        limits_(limits),
        constants_(file.tensors, limits) {}

  Model parse() {
    const std::string where = concat(source_, ": graph");
    const auto is_node = [](const std::string& member) { return member == "nodes"; };
    // Nodes are read one by one, once everything else is known: of many, none is kept as JSON.
    const auto document = parse_json(
        file_.graph_json, where, limits_,
        {.depth = 2,
         .keep = [&](const std::string& member, const auto&) { return !is_node(member); }});
    const Field graph(document, where);
    graph.only({"name", "inputs", "outputs", "nodes", "quantization"});
    QPP_CHECK(graph["nodes"].list().empty(), ModelError, where, ": expected a list of nodes");
    Model model;
    model.limits = limits_;
    model.name = graph["name"].string();
    for (const Field& input : graph["inputs"].list()) model.inputs.push_back(parse_input(input));
    check_limit(limits_, &Limits::inputs, model.inputs.size(), where, ": the number of inputs");
    const auto read = [&](const std::string& member, const nlohmann::json& item) {
      if (!is_node(member)) return false;
      const std::size_t index = model.nodes.size();
      check_limit(limits_, &Limits::nodes, index + 1, where, ": the number of nodes");
      model.nodes.push_back(parse_node(Field(item, concat(where, ".nodes[", index, "]"))));
      return false;
    };
    parse_json(file_.graph_json, where, limits_, {.depth = 2, .keep = read});
    model.outputs = graph["outputs"].strings();
    check_limit(limits_, &Limits::outputs, model.outputs.size(), where, ": the number of outputs");
    QPP_CHECK(!model.inputs.empty() && !model.outputs.empty(), ModelError, where,
              ": expected at least one input and one output");
    for (const std::string& output : model.outputs) require_value(output, where + ".outputs");
    if (graph.has("quantization"))
      model.quantization = parse_quantization(graph["quantization"], file_.format_version,
                                              constants_, order_, plan_int8(model.nodes).values);
    return model;
  }

 private:
  void define_value(const std::string& value, const std::string& where) {
    QPP_CHECK(order_.emplace(value, order_.size()).second, ModelError, where, ": the value '",
              value, "' is defined twice");
  }
  void require_value(const std::string& value, const std::string& where) const {
    QPP_CHECK(order_.contains(value), ModelError, where, ": the value '", value,
              "' is not defined before its use");
  }

  Model::Input parse_input(const Field& field) {
    field.only({"name", "shape"});
    Model::Input input;
    input.name = field["name"].string();
    const std::vector<Field> sizes = field["shape"].list(4);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (!sizes[i].is_null()) input.shape[i] = sizes[i].integer(1, limits_.dimension);
    }
    QPP_CHECK(input.shape[1].has_value(), ModelError, field.where(),
              ": the number of channels must be fixed");
    define_value(input.name, field.where());
    return input;
  }

  Node parse_node(const Field& field) {
    field.only({"op", "name", "inputs", "output", "attributes", "tensors", "fp16"});
    Node node = parse_node_structure(field);
    const std::string where = concat(source_, ": node '", node.name, "' (", node.op, ")");
    for (const std::string& input : node.inputs) require_value(input, where);
    const OpSchema& schema = schema_of(node, where);
    const Field attributes = field["attributes"];
    const Field tensors = field["tensors"];
    node.operation = schema.parse({.op = node.op,
                                   .name = node.name,
                                   .input_count = node.inputs.size(),
                                   .attributes = attributes,
                                   .tensors = tensors,
                                   .where = where,
                                   .limits = limits_,
                                   .constants = constants_});
    node.int8 = schema.int8_trait(
        {.op = node.op, .attributes = attributes, .tensor_shapes = shapes_of(tensors, where)});
    define_value(node.output, where);
    return node;
  }

  /// Checks the number of inputs, too.
  static const OpSchema& schema_of(const Node& node, const std::string& where) {
    const OpSchema* schema = find_op_schema(node.op);
    QPP_CHECK(schema != nullptr, UnsupportedError, where,
              ": this operation is not known to this version of qppengine");
    const auto [min, max] = schema->inputs;
    const bool varies = max > min && max != InputCount::kAny;
    QPP_CHECK(node.inputs.size() >= min && node.inputs.size() <= max, ModelError, where,
              ": expected ", min, varies ? concat(" to ", max) : "", " inputs, got ",
              node.inputs.size());
    return *schema;
  }

  [[nodiscard]] TensorShapes shapes_of(const Field& tensors, const std::string& where) const {
    TensorShapes shapes;
    for (const auto& [role, name] : tensors.members())
      shapes[role] = constants_.find(name.string(), where).shape;
    return shapes;
  }

  const ModelFile& file_;
  std::string source_;
  Limits limits_;
  Constants constants_;
  ValueOrder order_;
};

/// Throws UnsupportedError.
int parse_format_version(const std::string& text, const std::string& source) {
  for (int version = 1; version <= kFormatVersion; ++version) {
    if (text == std::to_string(version)) return version;
  }
  throw UnsupportedError(concat(source, ": expected format version 1 to ", kFormatVersion, ", got ",
                                quote(text), "; export the model again"));
}

}  // namespace

ModelFile read_model_file(std::span<const std::byte> bytes, const std::string& source,
                          const Limits& limits) {
  Safetensors container = parse_safetensors(bytes, source, limits);
  QPP_CHECK(container.metadata["format"] == kFormat, ModelError, source,
            ": expected a model written by qppengine.save, got ",
            "a safetensors file of another kind");
  return {.format_version = parse_format_version(container.metadata["format_version"], source),
          .graph_json = std::move(container.metadata["graph"]),
          .tensors = std::move(container.tensors)};
}

Model parse_model(const ModelFile& file, const std::string& source, const Limits& limits) {
  return Parser(file, source, limits).parse();
}

Model load_model(std::span<const std::byte> bytes, const std::string& source,
                 const Limits& limits) {
  return parse_model(read_model_file(bytes, source, limits), source, limits);
}

Model load_model(const std::string& path, const Limits& limits) {
  return load_model(read_file(path), path, limits);
}

}  // namespace qpp
