// SPDX-License-Identifier: Apache-2.0
#include "ops/conv_output.h"

#include <algorithm>

#include "kernels/conv.h"
#include "kernels/magic_bias.h"

namespace qpp {
namespace {

std::int64_t output_size(std::int64_t input, std::int64_t kernel, std::int64_t stride,
                         std::int64_t padding, std::int64_t dilation) {
  const std::int64_t effective = dilation * (kernel - 1) + 1;
  return input + padding < effective ? 0 : (input + padding - effective) / stride + 1;
}

}  // namespace

Shape conv_output_shape(const std::string& node, std::span<const Shape> inputs,
                        const Conv2dGeometry& geometry) {
  const Shape& input = inputs[0];
  QPP_CHECK(input.channels == geometry.channels, ShapeError, "node '", node,
            "' (conv2d): expected an input of ", geometry.channels, " channels, got ",
            to_string(input));
  const Shape output{
      .batch = input.batch,
      .height = output_size(input.height, geometry.kernel.height, geometry.stride.height,
                            geometry.padding.rows(), geometry.dilation.height),
      .width = output_size(input.width, geometry.kernel.width, geometry.stride.width,
                           geometry.padding.columns(), geometry.dilation.width),
      .channels = geometry.filters};
  QPP_CHECK(output.height > 0 && output.width > 0, ShapeError, "node '", node,
            "' (conv2d): the input ", to_string(input),
            " is smaller than the effective size of the ", geometry.kernel.height, "x",
            geometry.kernel.width, " kernel");
  QPP_CHECK(inputs.size() == 1 || inputs[1] == output, ShapeError, "node '", node,
            "' (conv2d): expected a residual of the output's shape ", to_string(output), ", got ",
            to_string(inputs.back()));
  return output;
}

OutputStage fill_output_stage(const Conv2dTypes& types, const ActivationSpec& activation,
                              const PackedWeights& weights, std::span<const float> bias,
                              const RunState& state, const OutputArrays& arrays) {
  const bool quantized_src = types.src == DType::qai8;
  const bool quantized_dst = types.dst == DType::qai8;
  const bool tanh = activation.nonlinearity == Nonlinearity::tanh;
  const QParams src =
      quantized_src ? state.qparams[static_cast<std::size_t>(types.src_row)] : QParams{};
  const QParams dst =
      quantized_dst ? state.qparams[static_cast<std::size_t>(types.dst_row)] : QParams{};
  const float steps_per_unit = quantized_dst ? dst.inverse_scale : 1.0F;
  const float before =
      tanh ? 1.0F : steps_per_unit;  // tanh needs real numbers; the output scale follows it
  const auto fill_arrays = [&] {
    for (std::size_t f = 0; f < weights.scales.size(); ++f) {
      if (arrays.correction != nullptr) {
        arrays.correction[f] = quantized_src ? -src.zero_point * weights.sums[f] : 0;
      }
      arrays.multiplier[f] = weights.scales[f] * src.scale * before;
      arrays.bias[f] = bias.empty() ? 0.0F : bias[f] * before;
    }
  };
  fill_arrays();
  OutputStage stage;
  stage.correction = arrays.correction;
  stage.multiplier = arrays.multiplier;
  stage.bias = arrays.bias;
  stage.nonlinearity = activation.nonlinearity;
  stage.post_scale = tanh ? steps_per_unit : 1.0F;
  stage.lo = activation.lo * steps_per_unit;
  stage.hi = activation.hi * steps_per_unit;
  if (quantized_dst) {
    const float lo =
        types.sparse_dst ? -kMaxInt16Level : static_cast<float>(dst.qmin - dst.zero_point);
    const float hi =
        types.sparse_dst ? kMaxInt16Level : static_cast<float>(dst.qmax - dst.zero_point);
    stage.lo = std::clamp(stage.lo, lo, hi);
    stage.hi = std::clamp(stage.hi, lo, hi);
    stage.zero_point = dst.zero_point;
  }
  const bool int8_residual = types.residual == DType::qai8;
  if (types.residual) {
    const QParams residual =
        int8_residual ? state.qparams[static_cast<std::size_t>(types.residual_row)] : QParams{};
    stage.residual = {.dtype = *types.residual,
                      .scale = residual.scale * steps_per_unit,
                      .zero_point = residual.zero_point};
  }
  if (!quantized_src || arrays.correction == nullptr || weights.magnitudes.empty() || tanh) {
    return stage;
  }
  const RunSums sums{.weights = weights,
                     .zero_point = src.zero_point,
                     .sparse = types.sparse_src ? kMaxSparseSum : 0};
  const DType kernel_dst = quantized_dst && types.sparse_dst ? DType::qai16 : types.dst;
  if (!try_fast_requantization(sums, kernel_dst, types.residual.has_value(), arrays, stage))
    fill_arrays();
  return stage;
}

void store_range(const Conv2dTypes& types, std::span<const Range> threads, RunState& state) {
  if (types.range_row < 0) return;
  Range& range = state.ranges[static_cast<std::size_t>(types.range_row)] = Range{};
  for (const Range& other : threads) extend_range(range, other);
}

}  // namespace qpp
