// SPDX-License-Identifier: Apache-2.0
#include "ops/quantize.h"

namespace qpp {
namespace {

/// Splits a flat tensor into whole vectors of 8 elements.
template <typename Run>
void for_vectors(ThreadPool& pool, const Shape& shape, const Run& run) {
  pool.parallel_for(shape.elements() / kChannelPadding,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      run(begin * kChannelPadding, (end - begin) * kChannelPadding);
                    });
}

}  // namespace

Shape Quantize::prepare(std::span<const Shape> inputs, int /*threads*/) { return inputs[0]; }

void Quantize::run(const RunArgs& args, RunState& state) const {
  const QParams& row = state.qparams[static_cast<std::size_t>(row_)];
  for_vectors(state.pool, args.output.shape, [&](std::int64_t first, std::int64_t count) {
    kernel_->function({.src = args.inputs[0].as<half>() + first,
                       .dst = args.output.as<std::int8_t>() + first,
                       .count = count,
                       .inverse_scale = row.inverse_scale,
                       .lo = static_cast<float>(row.qmin - row.zero_point),
                       .hi = static_cast<float>(row.qmax - row.zero_point),
                       .zero_point = row.zero_point});
  });
}

Shape Dequantize::prepare(std::span<const Shape> inputs, int /*threads*/) { return inputs[0]; }

void Dequantize::run(const RunArgs& args, RunState& state) const {
  const QParams& row = state.qparams[static_cast<std::size_t>(row_)];
  for_vectors(state.pool, args.output.shape, [&](std::int64_t first, std::int64_t count) {
    kernel_->function({.src = args.inputs[0].as<std::int8_t>() + first,
                       .dst = args.output.as<half>() + first,
                       .count = count,
                       .scale = row.scale,
                       .zero_point = row.zero_point});
  });
}

}  // namespace qpp
