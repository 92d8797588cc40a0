// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.h"

#include "kernels/neon/output_stage_neon.h"
#include "kernels/unary_math.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Four floats with the operators and functions that unary_math.h asks for.
struct Float4 {
  // NOLINTBEGIN(google-explicit-constructor): formulas mix vectors and numbers
  QPP_NEON_INLINE Float4(float32x4_t vector) : lanes(vector) {}
  QPP_NEON_INLINE Float4(float number) : lanes(vdupq_n_f32(number)) {}
  // NOLINTEND(google-explicit-constructor)

  float32x4_t lanes;
};

QPP_NEON_INLINE Float4 operator+(Float4 x, Float4 y) { return vaddq_f32(x.lanes, y.lanes); }
QPP_NEON_INLINE Float4 operator-(Float4 x, Float4 y) { return vsubq_f32(x.lanes, y.lanes); }
QPP_NEON_INLINE Float4 operator*(Float4 x, Float4 y) { return vmulq_f32(x.lanes, y.lanes); }
QPP_NEON_INLINE Float4 operator/(Float4 x, Float4 y) { return vdivq_f32(x.lanes, y.lanes); }
QPP_NEON_INLINE Float4 operator-(Float4 x) { return vnegq_f32(x.lanes); }
QPP_NEON_INLINE Float4 absolute(Float4 x) { return vabsq_f32(x.lanes); }
QPP_NEON_INLINE Float4 square_root(Float4 x) { return vsqrtq_f32(x.lanes); }
QPP_NEON_INLINE Float4 multiply_add(Float4 x, Float4 y, Float4 z) {
  return vfmaq_f32(z.lanes, x.lanes, y.lanes);
}
QPP_NEON_INLINE Float4 where_greater(Float4 x, Float4 y, Float4 if_greater, Float4 if_not) {
  return vbslq_f32(vcgtq_f32(x.lanes, y.lanes), if_greater.lanes, if_not.lanes);
}
QPP_NEON_INLINE Float4 clamp_level(Float4 x, Float4 lo, Float4 hi) {
  return qpp::clamp_level(x.lanes, lo.lanes, hi.lanes);
}
QPP_NEON_INLINE Float4 tanh_shared(Float4 x) { return qpp::tanh_shared(x.lanes); }
QPP_NEON_INLINE Float4 power_of_two(Float4 shifted) {
  const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(shifted.lanes), 23);
  return vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(0x3f800000U)));
}
QPP_NEON_INLINE Float4 power(Float4 x, Float4 exponent) {
  alignas(16) float lanes[4];
  vst1q_f32(lanes, x.lanes);
  const float number = vgetq_lane_f32(exponent.lanes, 0);
  for (float& lane : lanes) lane = qpp::power(lane, number);
  return vld1q_f32(lanes);
}

/// `formula` of x, a and b.
template <typename Formula>
QPP_NEON_INLINE void for_elements(const ActivationArgs& args, const Formula& formula) {
  const Float4 a(args.a);
  const Float4 b(args.b);
  for (std::int64_t i = 0; i < args.pixels * args.channels; i += 8) {
    const Float8 x = to_float32(load(args.src + i));
    const Float4 low = formula(Float4(x.low), a, b);
    const Float4 high = formula(Float4(x.high), a, b);
    store(args.dst + i, narrow({low.lanes, high.lanes}));
  }
}

/// The same with the slope of every channel for a.
template <typename Formula>
QPP_NEON_INLINE void for_channels(const ActivationArgs& args, const Formula& formula) {
  const Float4 b(args.b);
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    const Float8 slope = load(args.slopes + c);
    for (std::int64_t p = 0; p < args.pixels; ++p) {
      const std::int64_t i = p * args.channels + c;
      const Float8 x = to_float32(load(args.src + i));
      const Float4 low = formula(Float4(x.low), Float4(slope.low), b);
      const Float4 high = formula(Float4(x.high), Float4(slope.high), b);
      store(args.dst + i, narrow({low.lanes, high.lanes}));
    }
  }
}

template <UnaryActivation kFunction, typename Formula>
QPP_NEON_INLINE void apply(const ActivationArgs& args, const Formula& formula) {
  if constexpr (kFunction == UnaryActivation::prelu) {
    for_channels(args, formula);
  } else {
    for_elements(args, formula);
  }
}

}  // namespace

// dst[i] = half(function(src[i])), see activation.h
//
// src, dst       flat arrays of pixels * channels fp16
// preconditions  channels % 8 == 0; reads and writes exactly that many
// loop budget    8 elements: 2 FCVTL and 2 FCVTN of two slots on V0 and the function: a clamp 4
//                slots (0.8 cycles an element on A76, bound by V0), hardswish 8, tanh 34 and 2
//                FDIV; pow calls the C library for every element
void activation_f16_f16_neon(const ActivationArgs& args) {
  switch (args.function) {
#define QPP_UNARY(name, a_attribute, b_attribute, ...)                     \
  case UnaryActivation::name:                                              \
    return apply<UnaryActivation::name>(                                   \
        args,                                                              \
        [](Float4 x, [[maybe_unused]] Float4 a, [[maybe_unused]] Float4 b) \
            QPP_NEON_INLINE_LAMBDA -> Float4 { return __VA_ARGS__; });
#include "kernels/unary_activations.inc"
  }
}

}  // namespace qpp
