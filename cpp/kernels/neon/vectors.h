// SPDX-License-Identifier: Apache-2.0
//
// Small helpers of the NEON kernels. All are inlined by force: a shared inline function that stayed
// a call could be linked in the version of a file built for a newer CPU.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "base/half.h"

#define QPP_NEON_INLINE [[gnu::always_inline]] inline
#define QPP_NEON_INLINE_LAMBDA __attribute__((always_inline))

namespace qpp {

/// Eight floats, lanes 0..3 and 4..7.
struct Float8 {
  float32x4_t low;
  float32x4_t high;
};

QPP_NEON_INLINE Float8 add(const Float8& a, const Float8& b) {
  return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}

QPP_NEON_INLINE Float8 load(const float* src) { return {vld1q_f32(src), vld1q_f32(src + 4)}; }

QPP_NEON_INLINE float16x8_t load(const half* src) {
  return vreinterpretq_f16_u16(vld1q_u16(&src->bits));
}

/// Zero in the lanes that the mask leaves out.
QPP_NEON_INLINE float16x8_t load_masked(const half* src, uint16x8_t mask) {
  return vreinterpretq_f16_u16(vandq_u16(vld1q_u16(&src->bits), mask));
}

QPP_NEON_INLINE float16x8_t load_broadcast(const half* src) {
  return vreinterpretq_f16_u16(vld1q_dup_u16(&src->bits));
}

QPP_NEON_INLINE void store(half* dst, float16x8_t value) {
  vst1q_u16(&dst->bits, vreinterpretq_u16_f16(value));
}

QPP_NEON_INLINE Float8 to_float32(float16x8_t value) {
  return {vcvt_f32_f16(vget_low_f16(value)), vcvt_high_f32_f16(value)};
}

QPP_NEON_INLINE float16x8_t narrow(const Float8& value) {
  return vcvt_high_f16_f32(vcvt_f16_f32(value.low), value.high);
}

/// Makes the compiler treat a pointer as unknown, so that it loads the same constants again for
/// each use. A load does not occupy a vector pipe; a register move would, and these pipes bound the
/// kernels.
template <typename T>
QPP_NEON_INLINE void forget(const T*& pointer) {
  asm("" : "+r"(pointer));
}

}  // namespace qpp
