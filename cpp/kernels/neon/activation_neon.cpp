// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.h"

#include "kernels/neon/output_stage_neon.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

QPP_NEON_INLINE float32x4_t sigmoid(float32x4_t x) {
  const float32x4_t half_one = vdupq_n_f32(0.5F);
  return vfmaq_f32(half_one, tanh_shared(vmulq_f32(half_one, x)), half_one);
}

QPP_NEON_INLINE float32x4_t hardsigmoid(float32x4_t x) {
  return clamp_level(vfmaq_f32(vdupq_n_f32(0.5F), x, vdupq_n_f32(1.0F / 6.0F)), vdupq_n_f32(0),
                     vdupq_n_f32(1));
}

/// `function` of four elements.
template <typename Apply>
QPP_NEON_INLINE void for_elements(const ActivationArgs& args, const Apply& function) {
  for (std::int64_t i = 0; i < args.pixels * args.channels; i += 8) {
    const Float8 x = widen(load(args.src + i));
    store(args.dst + i, narrow({function(x.low), function(x.high)}));
  }
}

QPP_NEON_INLINE float32x4_t prelu(float32x4_t x, float32x4_t slope) {
  const float32x4_t zero = vdupq_n_f32(0);
  return vfmaq_f32(vmaxq_f32(x, zero), slope, vminq_f32(x, zero));
}

QPP_NEON_INLINE void for_channels(const ActivationArgs& args) {
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    const Float8 slope = load(args.slopes + c);
    for (std::int64_t p = 0; p < args.pixels; ++p) {
      const std::int64_t i = p * args.channels + c;
      const Float8 x = widen(load(args.src + i));
      store(args.dst + i, narrow({prelu(x.low, slope.low), prelu(x.high, slope.high)}));
    }
  }
}

}  // namespace

// dst[i] = half(function(src[i])), see activation.h
//
// src, dst       flat arrays of pixels * channels fp16
// preconditions  channels % 8 == 0; reads and writes exactly that many
// loop budget    8 elements: 2 FCVTL and 2 FCVTN of two slots on V0 and the function: a clamp 4
//                slots (0.8 cycles an element on A76, bound by V0), hardswish 8, tanh 34 and 2 FDIV
void activation_f16_f16_neon(const ActivationArgs& args) {
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  switch (args.function) {
    case Function::clamp:
      return for_elements(args, [=](float32x4_t x) { return clamp_level(x, lo, hi); });
    case Function::tanh:
      return for_elements(args, [](float32x4_t x) { return tanh_shared(x); });
    case Function::sigmoid:
      return for_elements(args, [](float32x4_t x) { return sigmoid(x); });
    case Function::silu:
      return for_elements(args, [](float32x4_t x) { return vmulq_f32(x, sigmoid(x)); });
    case Function::hardsigmoid:
      return for_elements(args, [](float32x4_t x) { return hardsigmoid(x); });
    case Function::hardswish:
      return for_elements(args, [](float32x4_t x) { return vmulq_f32(x, hardsigmoid(x)); });
    case Function::prelu:
      return for_channels(args);
  }
}

}  // namespace qpp
