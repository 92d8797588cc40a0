// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/half.h"
#include "kernels/kernels.h"
#include "kernels/output_stage.h"

namespace qpp {

/// Functions of one element. Each step is one IEEE operation, so that the NEON twin gives the same
/// bits.
enum class Function : std::uint8_t {
  clamp,        // clamp_level(x, lo, hi)
  tanh,         // tanh_shared(x)
  sigmoid,      // fma(tanh_shared(x / 2), 1/2, 1/2)
  silu,         // x * sigmoid(x)
  hardsigmoid,  // clamp_level(fma(x, 1/6, 1/2), 0, 1)
  hardswish,    // x * hardsigmoid(x)
  prelu,        // fma(slope, min(x, 0), max(x, 0))
};

/// dst[i] = half(function(src[i])).
struct ActivationArgs {
  const half* src = nullptr;
  half* dst = nullptr;
  std::int64_t pixels = 0;
  std::int64_t channels = 0;  // a multiple of 8
  Function function = Function::clamp;
  float lo = 0;
  float hi = 0;
  const float* slopes = nullptr;  // prelu: [channels]
};
using ActivationKernel = Kernel<ActivationArgs>;

inline float hardsigmoid(float x) { return clamp_level(std::fma(x, 1.0F / 6.0F, 0.5F), 0, 1); }
inline float sigmoid(float x) { return std::fma(tanh_shared(0.5F * x), 0.5F, 0.5F); }

}  // namespace qpp
