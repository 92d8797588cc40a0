// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Adding it to a half of magnitude below 2^9 rounds half to even to an integer, whose low byte
/// is then in the low byte: kRoundingMagic of fp16.
constexpr half kMagic{0x6600};  // 1.5 * 2^10

}  // namespace

// dst[i] = round_half_even(clamp(src[i] * inverse_scale, lo, hi)) + zero_point
//
// src, dst       flat arrays of `count` fp16 and int8
// method         Elements are clamped before they are scaled, to halves that give lo and hi. FMLA
//                rounds the exact src[i] * inverse_scale once, to an integer. Where the inverse or
//                the bounds are no finite halves, quantize_qai8_f16_neon does the work: the same
//                levels come of its float products, which are exact for an inverse that is a half
// preconditions  count % 8 == 0; reads and writes exactly `count` elements
// registers      4 for constants, 8 for the elements
// loop budget    32 elements: 8 loads, 8 FMAX/FMINNM, 4 FMLA, 2 UZP1, 2 ADD, 2 stores: 18 slots of
//                the vector pipes, 9 cycles on A76 (0.28 an element)
// choices        The magic number is loaded for each FMLA (forget), since a register move would
//                take a slot
void quantize_qai8_f16_neon_fp16(const QuantizeArgs& args) {
  const half inverse = to_half(args.inverse_scale);
  // Neighbouring halves are at most an eighth of a step apart here, so that these round to lo, hi.
  const half least = to_half(args.lo / args.inverse_scale);
  const half most = to_half(args.hi / args.inverse_scale);
  if (to_float(inverse) != args.inverse_scale || !std::isfinite(to_float(least)) ||
      !std::isfinite(to_float(most))) {
    quantize_qai8_f16_neon(args);
    return;
  }
  const float16x8_t inverse_scale = load_broadcast(&inverse);
  const float16x8_t lo = load_broadcast(&least);
  const float16x8_t hi = load_broadcast(&most);
  const int8x16_t zero_point = vdupq_n_s8(static_cast<std::int8_t>(args.zero_point));
  constexpr half kMagicVector[] = {kMagic, kMagic, kMagic, kMagic, kMagic, kMagic, kMagic, kMagic};
  const half* magic = kMagicVector;
  const auto quantize = [&](std::int64_t i) {
    const float16x8_t value = vminnmq_f16(vmaxq_f16(load(args.src + i), lo), hi);
    forget(magic);
    return vreinterpretq_s8_f16(vfmaq_f16(load(magic), value, inverse_scale));
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

}  // namespace qpp
