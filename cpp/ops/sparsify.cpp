// SPDX-License-Identifier: Apache-2.0
#include "ops/sparsify.h"

#include <algorithm>
#include <bit>

namespace qpp {

SparsifyArgs sparsify_bounds(const QParams& row) {
  return {.lo = row.qmin - kMaxResidual,
          .hi = row.qmax + kMaxResidual,
          .saturation_lo = row.qmin - kMaxResidual,
          .saturation_hi = row.qmax + kMaxResidual,
          .qmin = row.qmin,
          .qmax = row.qmax,
          .inverse_scale = row.inverse_scale,
          .zero_point = row.zero_point,
          .row = {}};
}

bool sparsify_pixels(const SparsifyKernel& kernel, SparsifyArgs args, const TensorView& dst,
                     std::int64_t first, std::int64_t count) {
  const Shape& shape = dst.shape;
  const auto src_pixel_bytes = shape.stride() * static_cast<std::int64_t>(size_of(kernel.src));
  args.dst = dst.as<std::int8_t>() + first * shape.stride();
  args.channels = shape.stride();
  std::int64_t row = first / shape.width;
  bool fits = true;
  args.x = first % shape.width;
  while (count > 0) {
    args.pixels = std::min(count, shape.width - args.x);
    args.row = dst.outliers.row(row);
    const std::uint32_t saturated = kernel.function(args);
    *args.row.dropped += saturated;
    fits &= saturated == 0;
    args.src = static_cast<const std::byte*>(args.src) + args.pixels * src_pixel_bytes;
    args.dst += args.pixels * shape.stride();
    count -= args.pixels;
    args.x = 0;
    ++row;
  }
  return fits;
}

std::uint32_t count_dropped_before(const TensorView& dst, std::int64_t first) {
  const std::int64_t width = dst.shape.width;
  return first % width == 0 ? 0 : *dst.outliers.row(first / width).dropped;
}

void restore_dropped(const TensorView& dst, std::int64_t first, std::uint32_t count) {
  *dst.outliers.row(first / dst.shape.width).dropped = count;
}

namespace {

/// The magnitude, in steps, that four of five of some residuals do not exceed; reorders them.
float residual_quantile(half* begin, half* end) {
  if (begin == end) return 0;
  half* const at = begin + (end - begin) * 4 / 5;
  std::nth_element(begin, at, end,
                   [](half a, half b) { return std::abs(to_float(a)) < std::abs(to_float(b)); });
  return to_float(*at) * kStepsPerResidual;
}

}  // namespace

bool extend_to_fit(const TensorView& value, QParams& row) {
  float below = 0;
  float above = 0;
  bool any = false;
  for (std::int64_t i = 0; i < value.shape.batch * value.shape.height; ++i) {
    const OutlierRow outliers = value.outliers.row(i);
    if (*outliers.dropped == 0) continue;
    any = true;
    half* const begin = outliers.residuals;
    half* const end = begin + outliers.begins[value.shape.width];
    half* const middle = std::partition(begin, end, [](half r) { return to_float(r) > 0; });
    above = std::max(above, residual_quantile(begin, middle));
    below = std::min(below, residual_quantile(middle, end));
  }
  if (!any) return false;
  constexpr float kMaxOfHalves = 65504;
  const float lo = (static_cast<float>(row.qmin - row.zero_point) + below) * row.scale;
  const float hi = (static_cast<float>(row.qmax - row.zero_point) + above) * row.scale;
  row = choose_qparams(std::max(lo, -kMaxOfHalves), std::min(hi, kMaxOfHalves),
                       std::bit_width(static_cast<unsigned>(row.qmax - row.qmin)));
  return true;
}

Shape Sparsify::prepare(std::span<const Shape> inputs, int /*threads*/) { return inputs[0]; }

void Sparsify::run(const RunArgs& args, RunState& state) const {
  const Shape& shape = args.output.shape;
  const QParams& row = state.qparams[static_cast<std::size_t>(row_)];
  state.pool.parallel_for(
      shape.batch * shape.height, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        SparsifyArgs sparsify = sparsify_bounds(row);
        sparsify.src = args.inputs[0].as<half>() + begin * shape.width * shape.stride();
        sparsify_pixels(*kernel_, sparsify, args.output, begin * shape.width,
                        (end - begin) * shape.width);
      });
}

}  // namespace qpp
