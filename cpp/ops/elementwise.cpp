// SPDX-License-Identifier: Apache-2.0
#include "ops/elementwise.h"

#include <algorithm>
#include <map>
#include <memory>

#include "base/json_field.h"

namespace qpp {
namespace {

const std::byte* element(const TensorView& view, std::int64_t index) {
  return static_cast<const std::byte*>(view.data) +
         index * static_cast<std::int64_t>(size_of(view.dtype));
}

}  // namespace

const char* name_of(BinaryKind kind) {
  switch (kind) {
    case BinaryKind::add:
      return "add";
    case BinaryKind::sub:
      return "sub";
    case BinaryKind::mul:
      return "mul";
  }
  return "?";
}

Binary::Binary(const BinarySpec& spec, const BinaryTypes& types, const KernelSelection& selection)
    : spec_(spec),
      types_(types),
      kernel_(spec.kind == BinaryKind::mul ? &selection.mul(types.dst, types.src)
                                           : &selection.add(types.dst, types.src)) {}

Shape Binary::prepare(std::span<const Shape> inputs, int /*threads*/) {
  Shape per_channel = inputs[0];
  per_channel.height = per_channel.width = 1;
  QPP_CHECK(inputs[1] == inputs[0] || inputs[1] == per_channel, ShapeError, "node '", spec_.name,
            "' (", kind(), "): expected two inputs of one shape, or the second ",
            to_string(per_channel), ", got ", to_string(inputs[0]), " and ", to_string(inputs[1]));
  return inputs[0];
}

BinaryArgs Binary::constants(const RunState& state) const {
  const auto row = [&state](int index) {
    return index < 0 ? QParams{} : state.qparams[static_cast<std::size_t>(index)];
  };
  const QParams a = row(types_.a_row);
  const QParams b = row(types_.b_row);
  const QParams dst = row(types_.dst_row);
  const float sign = spec_.kind == BinaryKind::sub ? -1.0F : 1.0F;
  BinaryArgs args;
  args.a_zero_point = a.zero_point;
  args.b_zero_point = b.zero_point;
  args.lo = spec_.activation.lo;
  args.hi = spec_.activation.hi;
  args.a_scale = a.scale;
  args.b_scale = b.scale * sign;
  if (spec_.kind == BinaryKind::mul) {
    args.a_scale = a.scale * b.scale * dst.inverse_scale;
    if (types_.dst == DType::qai8) {
      const auto qmin = static_cast<float>(dst.qmin - dst.zero_point);
      const auto qmax = static_cast<float>(dst.qmax - dst.zero_point);
      args.lo = std::clamp(args.lo * dst.inverse_scale, qmin, qmax);
      args.hi = std::clamp(args.hi * dst.inverse_scale, qmin, qmax);
      args.zero_point = dst.zero_point;
    }
  } else if (types_.dst == DType::qai8) {
    args.levels = make_add_levels(a, b, dst, sign, spec_.activation.lo, spec_.activation.hi);
  }
  return args;
}

void Binary::run(const RunArgs& args, RunState& state) const {
  const TensorView& a = args.inputs[0];
  const TensorView& b = args.inputs[1];
  const BinaryArgs shared = constants(state);
  const bool per_channel = b.shape != a.shape;
  // A call covers all elements that are contiguous in both sources: a vector of a pixel's channels,
  // or of the whole tensor.
  const std::int64_t unit = per_channel ? a.shape.stride() : kChannelPadding;
  const std::int64_t pixels = a.shape.height * a.shape.width;  // of an image
  state.pool.parallel_for(
      a.shape.elements() / unit, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        BinaryArgs own = shared;
        const auto call = [&](std::int64_t first, std::int64_t b_first, std::int64_t count) {
          own.a = element(a, first);
          own.b = element(b, b_first);
          own.dst = const_cast<std::byte*>(element(args.output, first));
          own.count = count;
          kernel_->function(own);
        };
        if (!per_channel) {
          call(begin * unit, begin * unit, (end - begin) * unit);
          return;
        }
        for (std::int64_t pixel = begin; pixel < end; ++pixel)
          call(pixel * unit, pixel / pixels * unit, unit);
      });
}

Int8Trait BinarySpec::int8_trait(const NodeSignature& node) {
  Int8Trait trait{.role = Int8Role::propagates};
  if (node.op != "mul") trait.first_residual = 0;
  return trait;
}

Operation BinarySpec::parse(const NodeFields& node) {
  static const std::map<std::string, BinaryKind> kKinds = {
      {"add", BinaryKind::add}, {"sub", BinaryKind::sub}, {"mul", BinaryKind::mul}};
  node.attributes.only({"activation", "clamp"});
  node.expect_no_tensors();
  const BinarySpec spec{.name = node.name,
                        .kind = kKinds.at(node.op),
                        .activation = parse_activation(node.attributes)};
  QPP_CHECK(spec.activation.nonlinearity == Nonlinearity::clamp, UnsupportedError, node.where,
            ": expected the activation none, relu or clamp");
  return {.make = [spec](const OpTypes& types, const OpContext& context) {
    return std::make_unique<Binary>(spec,
                                    BinaryTypes{.src = types.inputs[0].dtype,
                                                .dst = types.output.dtype,
                                                .a_row = types.inputs[0].row,
                                                .b_row = types.inputs[1].row,
                                                .dst_row = types.output.row},
                                    context.selection);
  }};
}

}  // namespace qpp
