// SPDX-License-Identifier: Apache-2.0
#include "ops/activation.h"

namespace qpp {

Shape Activation::prepare(std::span<const Shape> inputs, int /*threads*/) { return inputs[0]; }

void Activation::run(const RunArgs& args, RunState& state) const {
  const half* src = args.inputs[0].as<half>();
  half* dst = args.output.as<half>();
  state.pool.parallel_for(args.output.shape.elements(),
                          [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                            for (std::int64_t i = begin; i < end; ++i) {
                              float value = to_float(src[i]);
                              if (activation_.nonlinearity == Nonlinearity::tanh)
                                value = tanh_shared(value);
                              dst[i] = to_half(clamp_level(value, activation_.lo, activation_.hi));
                            }
                          });
}

}  // namespace qpp
