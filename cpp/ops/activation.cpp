// SPDX-License-Identifier: Apache-2.0
#include "ops/activation.h"

#include <algorithm>
#include <utility>

namespace qpp {

Activation::Activation(const ActivationSpec& activation, const KernelSelection& selection)
    : Activation(
          FunctionSpec{.name = "",
                       .function = activation.nonlinearity == Nonlinearity::tanh ? Function::tanh
                                                                                 : Function::clamp,
                       .lo = activation.lo,
                       .hi = activation.hi,
                       .slopes = {}},
          selection) {}

Activation::Activation(FunctionSpec spec, const KernelSelection& selection)
    : spec_(std::move(spec)), kernel_(&selection.activation()) {}

Shape Activation::prepare(std::span<const Shape> inputs, int /*threads*/) {
  if (spec_.function == Function::prelu) {
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
  state.pool.parallel_for(
      shape.pixels(), [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        kernel_->function({.src = args.inputs[0].as<half>() + begin * shape.stride(),
                           .dst = args.output.as<half>() + begin * shape.stride(),
                           .pixels = end - begin,
                           .channels = shape.stride(),
                           .function = spec_.function,
                           .lo = spec_.lo,
                           .hi = spec_.hi,
                           .slopes = slopes_.data()});
      });
}

}  // namespace qpp
