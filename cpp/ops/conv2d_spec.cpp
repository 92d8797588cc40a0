// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d_spec.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <span>

#include "base/align.h"
#include "base/json_field.h"
#include "kernels/pack.h"
#include "ops/conv_algorithm.h"
#include "ops/depthwise.h"
#include "tensor/layout.h"

namespace qpp {
namespace {

/// Multiplies the weights of each filter by its scale.
void scale_filters(const std::vector<float>& scales, const std::string& where,
                   std::vector<float>& weights) {
  const std::size_t size = weights.size() / scales.size();
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] *= scales[i / size];
    QPP_CHECK(std::isfinite(weights[i]), ModelError, where, ": a scaled weight is infinite");
  }
}

/// The approximate bytes that kernels read of the weights: filters and channels padded, in fp16.
std::int64_t packed_bytes(const Conv2dSpec& spec) {
  constexpr std::int64_t kGroupOverhead = 1024;
  const std::int64_t taps = spec.kernel.height * spec.kernel.width;
  if (DepthwiseConv2d::supports(spec)) return round_up<std::int64_t>(spec.filters, 16) * taps * 2;
  const std::int64_t filters = round_up<std::int64_t>(spec.filters / spec.groups, 16);
  const std::int64_t channels = round_up<std::int64_t>(spec.channels, 4);
  return spec.groups * (filters * channels * taps * 2 + kGroupOverhead);
}

/// A tensor of one number per filter.
std::vector<float> parse_filter_tensor(const NodeFields& node, const char* role,
                                       std::int64_t filters) {
  const Tensor& tensor = node.tensor(role);
  QPP_CHECK(tensor.shape == std::vector{filters}, ModelError, node.where, ": expected a ", role,
            " of ", filters, " elements, got ", tensor.elements());
  return Constants::floats(tensor, node.where);
}

/// Rounded weights, their scales and their bias, which a node has together or not at all.
std::optional<Int8Weights> parse_int8_weights(const NodeFields& node, const Tensor& weight) {
  const Field& tensors = node.tensors;
  if (!tensors.has("int8_weight") && !tensors.has("int8_scale") && !tensors.has("int8_bias"))
    return std::nullopt;
  const Tensor& rounded = node.tensor("int8_weight");
  QPP_CHECK(rounded.shape == weight.shape, ModelError, node.where,
            ": expected an int8_weight of the shape of the weight");
  node.constants.count(rounded.elements(), 0, node.where);
  Int8Weights int8{.levels = Constants::levels(rounded, node.where),
                   .scales = parse_filter_tensor(node, "int8_scale", weight.shape[0]),
                   .bias = parse_filter_tensor(node, "int8_bias", weight.shape[0])};
  for (const float scale : int8.scales) {
    QPP_CHECK(std::isnormal(scale) && scale > 0 && std::isfinite(scale * 127), ModelError,
              node.where, ": expected an int8_scale above 0 within float32, got ", scale);
  }
  return int8;
}

void parse_attributes(const NodeFields& node, Conv2dSpec& spec) {
  const Field& attributes = node.attributes;
  attributes.only({"stride", "padding", "dilation", "groups", "activation", "clamp"});
  if (attributes.has("groups")) {
    spec.groups = attributes["groups"].integer(1, node.limits.window);
    QPP_CHECK(spec.filters % spec.groups == 0, ModelError, node.where, ": expected ", spec.groups,
              " groups to divide the filters, of which there are ", spec.filters);
  }
  spec.stride = parse_size(attributes["stride"], node.limits);
  spec.padding = parse_padding(attributes["padding"], node.limits);
  spec.dilation = parse_size(attributes["dilation"], node.limits);
  spec.activation = parse_activation(attributes);
  if (node.input_count > 1) {
    QPP_CHECK(spec.groups == 1, UnsupportedError, node.where,
              ": expected one group together with a residual, got ", spec.groups);
    QPP_CHECK(spec.activation.nonlinearity == Nonlinearity::clamp, UnsupportedError, node.where,
              ": expected the activation none, relu or clamp together with a residual");
  }
}

Conv2dSpec parse_spec(const NodeFields& node) {
  const Field& tensors = node.tensors;
  tensors.only({"weight", "scale", "bias", "int8_weight", "int8_scale", "int8_bias"});
  const Tensor& weight = node.tensor("weight");
  QPP_CHECK(weight.shape.size() == 4, ModelError, node.where,
            ": expected a weight of 4 dimensions (OIHW), got ", weight.shape.size());
  QPP_CHECK(weight.elements() > 0, ModelError, node.where, ": expected a weight that is not empty");
  check_limit(node.limits, &Limits::window, std::max(weight.shape[2], weight.shape[3]), node.where,
              ": the kernel size");
  Conv2dSpec spec;
  spec.name = node.name;
  spec.filters = weight.shape[0];
  spec.channels = weight.shape[1];
  spec.kernel = {.height = weight.shape[2], .width = weight.shape[3]};
  parse_attributes(node, spec);
  node.constants.count(weight.elements(), packed_bytes(spec), node.where);
  spec.weights = Constants::floats(weight, node.where);
  if (tensors.has("scale"))
    scale_filters(parse_filter_tensor(node, "scale", spec.filters), node.where, spec.weights);
  spec.bias = tensors.has("bias") ? parse_filter_tensor(node, "bias", spec.filters)
                                  : std::vector<float>(static_cast<std::size_t>(spec.filters));
  spec.int8 = parse_int8_weights(node, weight);
  return spec;
}

Conv2dTypes convolution_types(const OpTypes& types) {
  const OperandType& src = types.inputs[0];
  Conv2dTypes result{.src = src.dtype,
                     .dst = types.output.dtype,
                     .sparse_src = src.sparse,
                     .sparse_dst = types.output.sparse,
                     .src_row = src.row,
                     .dst_row = types.output.row,
                     .range_row = types.range_row};
  if (types.inputs.size() > 1) {
    result.residual = types.inputs[1].dtype;
    result.residual_row = types.inputs[1].row;
  }
  return result;
}

}  // namespace

Int8Trait Conv2dSpec::int8_trait(const NodeSignature& node) {
  // A 1x1 convolution of every channel by itself is a gain and a shift: it need not read int8.
  const auto weight = node.tensor_shapes.find("weight");
  const std::int64_t groups =
      node.attributes.has("groups")
          ? node.attributes["groups"].integer(1, std::numeric_limits<std::int32_t>::max())
          : 1;
  const bool scales_channels = weight != node.tensor_shapes.end() &&
                               weight->second == std::vector<std::int64_t>{groups, 1, 1, 1};
  return {.role = scales_channels ? Int8Role::propagates : Int8Role::requests, .first_residual = 1};
}

Operation Conv2dSpec::parse(const NodeFields& node) {
  const auto spec = std::make_shared<const Conv2dSpec>(parse_spec(node));
  const bool adds = node.input_count > 1;
  Operation operation;
  operation.make = [spec](const OpTypes& types, const OpContext& context) {
    return make_conv2d(*spec, convolution_types(types), context.algorithm, context.selection);
  };
  operation.quantizes_fp16 = spec->groups == 1;
  // With a residual, the sums of padded channels are not defined.
  operation.measures_range = spec->groups == 1 && !(adds && spec->filters % kChannelPadding != 0);
  if (!int8_sums_fit(*spec)) {
    operation.int8_obstacle = concat("reads fp16, since sums of ",
                                     spec->channels * spec->kernel.height * spec->kernel.width,
                                     " int8 products could exceed int32");
  }
  return operation;
}

bool is_3x3_stride_1(const Conv2dSpec& spec) {
  return spec.kernel.height == 3 && spec.kernel.width == 3 && spec.stride.height == 1 &&
         spec.stride.width == 1 && spec.dilation.height == 1 && spec.dilation.width == 1;
}

Conv2dSpec with_int8_weights(const Conv2dSpec& spec) {
  if (!spec.int8) return spec;
  Conv2dSpec result = spec;
  result.weights = spec.int8->levels;
  scale_filters(spec.int8->scales, spec.name, result.weights);
  result.weight_scales = spec.int8->scales;
  result.bias = spec.int8->bias;
  result.int8.reset();
  return result;
}

bool int8_sums_fit(const Conv2dSpec& spec) {
  const auto size =
      static_cast<std::size_t>(spec.channels * spec.kernel.height * spec.kernel.width);
  if (static_cast<std::int64_t>(size) * 127 <= kMaxMagnitude) return true;
  const Conv2dSpec rounded = with_int8_weights(spec);
  for (std::size_t f = 0; f < static_cast<std::size_t>(spec.filters); ++f) {
    const std::span filter(rounded.weights.data() + f * size, size);
    float scale = 0;
    for (const float weight : filter) scale = std::max(scale, std::abs(weight) / 127.0F);
    if (!rounded.weight_scales.empty()) scale = rounded.weight_scales[f];
    if (scale == 0) continue;
    std::int64_t magnitude = 0;
    for (const float weight : filter)
      magnitude += static_cast<std::int64_t>(std::abs(quantize_weight(weight, scale)));
    if (magnitude > kMaxMagnitude) return false;
  }
  return true;
}

}  // namespace qpp
