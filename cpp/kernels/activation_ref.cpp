// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.h"

#include "kernels/unary_math.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

template <typename Formula>
void for_elements(const ActivationArgs& args, const Formula& formula) {
  for (std::int64_t p = 0; p < args.pixels; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      const std::int64_t i = p * args.channels + c;
      const float a = args.function == UnaryActivation::prelu ? args.slopes[c] : args.a;
      args.dst[i] = to_half(formula(to_float(args.src[i]), a, args.b));
    }
  }
}

}  // namespace

void activation_f16_f16_ref(const ActivationArgs& args) {
  switch (args.function) {
#define QPP_UNARY(name, a_attribute, b_attribute, ...)                                             \
  case UnaryActivation::name:                                                                      \
    return for_elements(args,                                                                      \
                        [](float x, [[maybe_unused]] float a, [[maybe_unused]] float b) -> float { \
                          return __VA_ARGS__;                                                      \
                        });
#include "kernels/unary_activations.inc"
  }
}

}  // namespace qpp
