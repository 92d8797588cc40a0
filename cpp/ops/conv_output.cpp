// SPDX-License-Identifier: Apache-2.0
#include "ops/conv_output.h"

#include <algorithm>
#include <cmath>

#include "kernels/conv.h"
#include "kernels/float_sums.h"
#include "tensor/outliers.h"

namespace qpp {
namespace {

std::int64_t output_size(std::int64_t input, std::int64_t kernel, std::int64_t stride,
                         std::int64_t padding, std::int64_t dilation) {
  const std::int64_t reach = dilation * (kernel - 1) + 1;
  return input + padding < reach ? 0 : (input + padding - reach) / stride + 1;
}

/// What a filter's sums lie between, and its numbers as they are in the longer way.
FloatSumFilter long_filter(const PackedWeights& weights, const QParams& src,
                           const ConvOutputArrays& arrays, std::size_t f) {
  // Sources less their zero point lie between -below and above.
  const std::int64_t below = src.zero_point + 128;
  const std::int64_t above = 127 - src.zero_point;
  const std::int64_t positive = (weights.magnitudes[f] + weights.sums[f]) / 2;
  const std::int64_t negative = (weights.magnitudes[f] - weights.sums[f]) / 2;
  return {.lowest = -positive * below - negative * above,
          .highest = positive * above + negative * below,
          .correction = arrays.correction[f],
          .multiplier = arrays.multiplier[f],
          .bias = arrays.bias[f]};
}

/// Levels of an int8 destination do not pass this before an int8 residual, raw, is added.
double largest_level(const PackedWeights& weights, const QParams& src,
                     const ConvOutputArrays& arrays, const ResidualStage& residual) {
  double largest = 0;
  for (std::size_t f = 0; f < weights.scales.size(); ++f) {
    const FloatSumFilter filter = long_filter(weights, src, arrays, f);
    const auto sum = static_cast<double>(std::max(-filter.lowest, filter.highest));
    largest = std::max(largest, sum * filter.multiplier + std::abs(filter.bias));
  }
  // Zero points move levels, and rounding of the bias does by up to a step.
  constexpr double kLargestZeroPoint = 128;
  return largest + kLargestZeroPoint * (1 + static_cast<double>(residual.scale)) + 1;
}

/// Changes the arrays for the shorter way of output_stage.h. False, with arrays changed in part, if
/// a filter does not allow it. An int8 or int16 destination is bounded by `needed`, or more widely
/// by `stage`, whose bounds are cut to what the filters have in common; `residual` may be null.
bool change_to_float_sums(const PackedWeights& weights, const QParams& src, std::int64_t sparse,
                          const ConvOutputArrays& arrays, bool quantized_dst, const Range& needed,
                          const ResidualStage* residual, OutputStage& stage) {
  Range reach{.lo = stage.lo, .hi = stage.hi};
  for (std::size_t f = 0; f < weights.scales.size(); ++f) {
    FloatSumFilter filter = long_filter(weights, src, arrays, f);
    filter.sparse = sparse;
    const bool fits = quantized_dst
                          ? use_float_sums(filter, stage.zero_point, std::max(needed.lo, stage.lo),
                                           std::min(needed.hi, stage.hi), reach, residual)
                          : use_float_sums(filter);
    if (!fits) return false;
    arrays.correction[f] = filter.correction;
    arrays.multiplier[f] = filter.multiplier;
    arrays.bias[f] = filter.bias;
  }
  if (quantized_dst) {
    stage.lo = reach.lo;
    stage.hi = reach.hi;
  }
  return true;
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
            "' (conv2d): the input ", to_string(input), " is smaller than the ",
            geometry.kernel.height, "x", geometry.kernel.width, " kernel's reach");
  QPP_CHECK(inputs.size() == 1 || inputs[1] == output, ShapeError, "node '", node,
            "' (conv2d): expected a residual of the output's shape ", to_string(output), ", got ",
            to_string(inputs.back()));
  return output;
}

OutputStage fill_output_stage(const Conv2dTypes& types, const ActivationSpec& activation,
                              const PackedWeights& weights, std::span<const float> bias,
                              const RunState& state, const ConvOutputArrays& arrays) {
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
      arrays.bias[f] = bias[f] * before;
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
    const std::int32_t residual = types.sparse_dst ? kLargestResidual : 0;
    const auto qmin = static_cast<float>(dst.qmin - dst.zero_point - residual);
    const auto qmax = static_cast<float>(dst.qmax - dst.zero_point + residual);
    stage.lo = std::clamp(stage.lo, qmin, qmax);
    stage.hi = std::clamp(stage.hi, qmin, qmax);
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
  const bool possible = arrays.correction != nullptr && !weights.magnitudes.empty();
  if (!quantized_src || !possible || tanh) return stage;

  OutputStage shorter = stage;
  shorter.float_sums = true;
  const bool adds_levels = types.residual && quantized_dst;
  if (adds_levels &&
      !(int8_residual && !types.sparse_dst &&
        use_fine_levels(shorter.residual, largest_level(weights, src, arrays, stage.residual)))) {
    return stage;
  }
  if (quantized_dst) {
    shorter.lo = std::nearbyint(stage.lo) + static_cast<float>(stage.zero_point);
    shorter.hi = std::nearbyint(stage.hi) + static_cast<float>(stage.zero_point);
  }
  // A sparse part may well be cut earlier, if not much earlier, than in the longer way.
  constexpr std::int32_t kLeastResidual = 256;
  const std::int32_t residual = types.sparse_dst ? kLeastResidual : 0;
  const Range needed{.lo = static_cast<float>(dst.qmin - residual),
                     .hi = static_cast<float>(dst.qmax + residual)};
  const std::int64_t sparse = types.sparse_src ? kLargestSparseSum : 0;
  if (change_to_float_sums(weights, src, sparse, arrays, quantized_dst, needed,
                           adds_levels ? &shorter.residual : nullptr, shorter)) {
    return shorter;
  }
  fill_arrays();
  return stage;
}

}  // namespace qpp
