// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.h"

#include "kernels/variants.h"

namespace qpp {
namespace {

float apply(const ActivationArgs& args, float x, std::int64_t channel) {
  switch (args.function) {
    case Function::clamp:
      return clamp_level(x, args.lo, args.hi);
    case Function::tanh:
      return tanh_shared(x);
    case Function::sigmoid:
      return sigmoid(x);
    case Function::silu:
      return x * sigmoid(x);
    case Function::hardsigmoid:
      return hardsigmoid(x);
    case Function::hardswish:
      return x * hardsigmoid(x);
    case Function::prelu:
      return std::fma(args.slopes[channel], clamp_level(x, -INFINITY, 0),
                      clamp_level(x, 0, INFINITY));
  }
  return x;
}

}  // namespace

void activation_f16_f16_ref(const ActivationArgs& args) {
  for (std::int64_t p = 0; p < args.pixels; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      const std::int64_t i = p * args.channels + c;
      args.dst[i] = to_half(apply(args, to_float(args.src[i]), c));
    }
  }
}

}  // namespace qpp
