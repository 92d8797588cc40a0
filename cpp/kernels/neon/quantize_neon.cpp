// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/output_stage_neon.h"
#include "kernels/variants.h"

namespace qpp {

// dst[i] = round_half_even(clamp(src[i] * inverse_scale, lo, hi)) + zero_point
//
// src, dst       flat arrays of `count` fp16 and int8
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// registers      5 for constants, 16 for the elements
// loop budget    32 elements: 4 loads; on V0 8 FCVTL of two slots, on both vector pipes 8 FMUL,
//                16 FMAX/FMINNM, 8 FADD, 6 UZP1, 2 ADD, 2 stores: 58 slots, 29 cycles on A76 (0.9
//                an element)
void quantize_qai8_f16_neon(const QuantizeArgs& args) {
  const float32x4_t inverse_scale = vdupq_n_f32(args.inverse_scale);
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  const int8x16_t zero_point = vdupq_n_s8(static_cast<std::int8_t>(args.zero_point));
  const auto clamp = [&](float32x4_t level) { return vminnmq_f32(vmaxq_f32(level, lo), hi); };
  const auto quantize = [&](std::int64_t i) {
    const Float8 value = to_float32(load(args.src + i));
    return round_to_low_bytes(
        {clamp(vmulq_f32(value.low, inverse_scale)), clamp(vmulq_f32(value.high, inverse_scale))});
  };
  std::int64_t i = 0;
  for (; i + 32 <= args.count; i += 32) {
    const int8x16_t first = vuzp1q_s8(quantize(i), quantize(i + 8));
    const int8x16_t second = vuzp1q_s8(quantize(i + 16), quantize(i + 24));
    vst1q_s8(args.dst + i, vaddq_s8(first, zero_point));
    vst1q_s8(args.dst + i + 16, vaddq_s8(second, zero_point));
  }
  for (; i < args.count; i += 8) {
    const int8x16_t last = quantize(i);
    vst1_s8(args.dst + i, vget_low_s8(vaddq_s8(vuzp1q_s8(last, last), zero_point)));
  }
}

// dst[i] = half((src[i] - zero_point) * scale)
//
// src, dst       flat arrays of `count` int8 and fp16
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// loop budget    8 elements: 1 load; 4 SCVTF and 4 FCVTN slots on V0, bound by these: 8 cycles on
//                A76 (1.0 per element)
void dequantize_f16_qai8_neon(const DequantizeArgs& args) {
  const float32x4_t scale = vdupq_n_f32(args.scale);
  const int8x8_t zero_point = vdup_n_s8(static_cast<std::int8_t>(args.zero_point));
  for (std::int64_t i = 0; i < args.count; i += 8) {
    const int16x8_t steps = vsubl_s8(vld1_s8(args.src + i), zero_point);
    const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(steps)));
    const float32x4_t high = vcvtq_f32_s32(vmovl_high_s16(steps));
    store(args.dst + i, narrow({vmulq_f32(low, scale), vmulq_f32(high, scale)}));
  }
}

}  // namespace qpp
