// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {

// dst = half((src - zero_point + residual) / 16), sparsify.h
//
// src, dst       int8 and fp16, [pixels][channels]
// preconditions  channels % 8 == 0; no over-read
// method         Steps from 96, where a unit in the last place of fp16 is a sixteenth; the few
//                residuals are added one by one
// registers      2 constants, 4 in passing
// loop budget    16 elements: 1 load, 2 SADDW, 2 FSUB, 2 stores: 3 cycles on A76; an outlier: 4
// loads
//                and stores, 2 cycles
void densify_f16_qai8_neon_fp16(const DensifyArgs& args) {
  constexpr std::int16_t k96 = 0x5600;
  const int16x8_t ninety_six = vdupq_n_s16(k96);
  const float16x8_t origin =
      vreinterpretq_f16_s16(vdupq_n_s16(static_cast<std::int16_t>(k96 + args.zero_point)));
  const auto steps = [&](int16x8_t level) QPP_NEON_INLINE_LAMBDA {
    return vsubq_f16(vreinterpretq_f16_s16(level), origin);
  };
  const std::int64_t count = args.pixels * args.channels;
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const int8x16_t src = vld1q_s8(args.src + i);
    store(args.dst + i, steps(vaddw_s8(ninety_six, vget_low_s8(src))));
    store(args.dst + i + 8, steps(vaddw_high_s8(ninety_six, src)));
  }
  if (i < count) store(args.dst + i, steps(vaddw_s8(ninety_six, vld1_s8(args.src + i))));

  half* dst = args.dst - args.x * args.channels;
  const std::uint32_t end = args.row.begins[args.x + args.pixels];
  for (std::uint32_t k = args.row.begins[args.x]; k < end; ++k) {
    half& value = dst[args.row.positions[k]];
    const auto residual = std::bit_cast<float16_t>(args.row.residuals[k].bits);
    value.bits =
        std::bit_cast<std::uint16_t>(vfmah_f16(std::bit_cast<float16_t>(value.bits), residual,
                                               static_cast<float16_t>(1 / kDensifyStepsPerUnit)));
  }
}

}  // namespace qpp
