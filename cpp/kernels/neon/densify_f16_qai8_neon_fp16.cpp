// SPDX-License-Identifier: Apache-2.0
#include <arm_fp16.h>

#include <bit>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {

// dst = half((src - zero_point + residual * kStepsPerResidual) / 16), sparsify.h; other units are
// the reference's
//
// src, dst       int8 and fp16, [pixels][channels]
// preconditions  channels % 8 == 0; no over-read
// method         Steps from 96, where a unit in the last place of fp16 is a sixteenth; the few
//                residuals are added one by one
// registers      2 constants, 4 in passing
// loop budget    32 elements: 2 loads, 4 SADDW, 4 FSUB, 4 stores, which take a slot of the vector
//                pipes each: 6 cycles on A76; an outlier: 4 loads and stores, 2 cycles
void densify_f16_qai8_neon_fp16(const DensifyArgs& args) {
  if (args.steps_per_unit != kDensifyStepsPerUnit) {
    densify_f16_qai8_ref(args);
    return;
  }
  constexpr std::int16_t k96 = 0x5600;
  constexpr auto kUnitsPerResidual =
      static_cast<float16_t>(kStepsPerResidual / kDensifyStepsPerUnit);
  const int16x8_t ninety_six = vdupq_n_s16(k96);
  const float16x8_t origin =
      vreinterpretq_f16_s16(vdupq_n_s16(static_cast<std::int16_t>(k96 + args.zero_point)));
  const std::int8_t* src = args.src;
  half* dst = args.dst;
  const std::int8_t* const src_end = src + args.pixels * args.channels;
  const auto join_eight = [&](int8x8_t bytes) QPP_NEON_INLINE_LAMBDA {
    store(dst, vsubq_f16(vreinterpretq_f16_s16(vaddw_s8(ninety_six, bytes)), origin));
    dst += 8;
  };
  for (; src_end - src >= 32; src += 32) {
    const int8x16_t low = vld1q_s8(src);
    const int8x16_t high = vld1q_s8(src + 16);
    join_eight(vget_low_s8(low));
    join_eight(vget_high_s8(low));
    join_eight(vget_low_s8(high));
    join_eight(vget_high_s8(high));
  }
  for (; src < src_end; src += 8) join_eight(vld1_s8(src));

  half* row = args.dst - args.x * args.channels;
  const std::uint32_t end = args.row.begins[args.x + args.pixels];
  for (std::uint32_t k = args.row.begins[args.x]; k < end; ++k) {
    half& value = row[args.row.positions[k]];
    const auto residual = std::bit_cast<float16_t>(args.row.residuals[k].bits);
    value.bits = std::bit_cast<std::uint16_t>(
        vfmah_f16(std::bit_cast<float16_t>(value.bits), residual, kUnitsPerResidual));
  }
}

}  // namespace qpp
