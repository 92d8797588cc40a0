// SPDX-License-Identifier: Apache-2.0
#include "ops/activation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/json_field.h"

namespace qpp {

namespace {

UnarySpec clamp_or_tanh(const NodeFields& node) {
  node.attributes.only({"activation", "clamp"});
  node.expect_no_tensors();
  const ActivationSpec activation = parse_activation(node.attributes);
  const bool is_tanh = activation.nonlinearity == Nonlinearity::tanh;
  return {.name = node.name,
          .function = is_tanh ? UnaryActivation::tanh : UnaryActivation::clamp,
          .a = activation.lo,
          .b = activation.hi,
          .slopes = {}};
}

UnarySpec parse_prelu(const NodeFields& node) {
  node.expect_no_attributes();
  node.tensors.only({"weight"});
  const Tensor& slopes = node.tensor("weight");
  QPP_CHECK(slopes.shape.size() == 1 && slopes.shape[0] >= 1, ModelError, node.where,
            ": expected a weight of 1 dimension");
  node.constants.count(slopes.elements(), 0, node.where);
  return {.name = node.name,
          .function = UnaryActivation::prelu,
          .slopes = Constants::floats(slopes, node.where)};
}

/// A function by its row of unary_activations.inc.
struct Row {
  UnaryActivation function;
  std::string a;  // the attributes that hold its numbers, or ""
  std::string b;
};

float parse_number(const NodeFields& node, const std::string& attribute) {
  if (attribute.empty()) return 0;
  const Field field = node.attributes[attribute.c_str()];
  const auto number = static_cast<float>(field.number());
  QPP_CHECK(std::isfinite(number), ModelError, field.where(), ": expected a number within fp32");
  return number;
}

UnarySpec parse_function(const NodeFields& node) {
  static const std::map<std::string, Row> kRows = {
#define QPP_UNARY(name, a, b, ...) {#name, {UnaryActivation::name, #a, #b}},
#include "kernels/unary_activations.inc"
  };
  const Row& row = kRows.at(node.op);
  std::set<std::string> attributes{row.a, row.b};
  attributes.erase("");
  node.attributes.only(attributes);
  node.expect_no_tensors();
  return {.name = node.name,
          .function = row.function,
          .a = parse_number(node, row.a),
          .b = parse_number(node, row.b),
          .slopes = {}};
}

UnarySpec parse_unary(const NodeFields& node) {
  if (node.op == "activation") return clamp_or_tanh(node);
  if (node.op == "prelu") return parse_prelu(node);
  return parse_function(node);
}

}  // namespace

ActivationSpec parse_activation(const Field& attributes) {
  const Field kind = attributes["activation"];
  const std::string name = kind.string();
  QPP_CHECK(attributes.has("clamp") == (name == "clamp"), ModelError, kind.where(),
            ": bounds belong to the activation \"clamp\" and to no other");
  if (name == "none") return {};
  if (name == "relu") return {.lo = 0};
  if (name == "tanh") return {.nonlinearity = Nonlinearity::tanh};
  QPP_CHECK(name == "clamp", UnsupportedError, kind.where(),
            ": expected none, relu, tanh or clamp, got \"", name, "\"");
  const std::vector<Field> bounds = attributes["clamp"].list(2);
  const auto lo = static_cast<float>(bounds[0].number());
  const auto hi = static_cast<float>(bounds[1].number());
  QPP_CHECK(lo <= hi, ModelError, attributes.where(), ": expected clamp bounds in order, got ", lo,
            " and ", hi);
  return {.lo = lo, .hi = hi};
}

Int8Trait UnarySpec::int8_trait(const NodeSignature& /*node*/) { return {}; }

Operation UnarySpec::parse(const NodeFields& node) {
  return {.make = [spec = parse_unary(node)](const OpTypes& /*types*/, const OpContext& context) {
    return std::make_unique<Activation>(spec, context.selection);
  }};
}

Activation::Activation(UnarySpec spec, const KernelSelection& selection)
    : spec_(std::move(spec)), kernel_(&selection.activation()) {}

Shape Activation::prepare(std::span<const Shape> inputs, int /*threads*/) {
  if (spec_.function == UnaryActivation::prelu) {
    const auto count = static_cast<std::int64_t>(spec_.slopes.size());
    QPP_CHECK(count == 1 || count == inputs[0].channels, ShapeError, "node '", spec_.name,
              "' (prelu): expected ", inputs[0].channels, " slopes, got ", count);
    slopes_.assign(static_cast<std::size_t>(inputs[0].stride()), spec_.slopes[0]);
    std::copy(spec_.slopes.begin(), spec_.slopes.end(), slopes_.begin());
  }
  return inputs[0];
}

void Activation::run(const RunArgs& args, RunState& state) const {
  const Shape& shape = args.output.shape;
  half* dst = args.output.as<half>();
  state.pool.parallel_for(
      shape.pixels(), [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        kernel_->function({.src = args.inputs[0].as<half>() + begin * shape.stride(),
                           .dst = dst + begin * shape.stride(),
                           .pixels = end - begin,
                           .channels = shape.stride(),
                           .function = spec_.function,
                           .a = spec_.a,
                           .b = spec_.b,
                           .slopes = slopes_.data()});
        // Functions of the padding may be infinite or NaN.
        if (shape.channels == shape.stride()) return;
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
          half* channels = dst + pixel * shape.stride();
          std::fill(channels + shape.channels, channels + shape.stride(), half{});
        }
      });
}

}  // namespace qpp
