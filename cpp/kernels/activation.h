// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"

namespace qpp {

/// The functions of unary_activations.inc.
enum class UnaryActivation : std::uint8_t {
#define QPP_UNARY(name, ...) name,
#include "kernels/unary_activations.inc"
};

/// dst[i] = half(function(src[i])).
struct ActivationArgs {
  const half* src = nullptr;
  half* dst = nullptr;
  std::int64_t pixels = 0;
  std::int64_t channels = 0;  // a multiple of 8
  UnaryActivation function = UnaryActivation::clamp;
  float a = 0;  // the numbers of the function
  float b = 0;
  const float* slopes = nullptr;  // prelu: [channels], in place of a
};
using ActivationKernel = Kernel<ActivationArgs>;

}  // namespace qpp
