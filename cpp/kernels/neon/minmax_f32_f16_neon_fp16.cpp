// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/half_range.h"
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

// Each chain takes every fourth vector, because an operation waits two cycles for the one before.
constexpr int kChains = 4;

}  // namespace

// range = min and max over src[p * stride + c], p < pixels, c < channels
//
// src            NHWC fp16, pixels of `stride` elements
// preconditions  stride % 8 == 0; reads whole pixels, padding included, which does not count
// registers      8 for the chains, 4 for the elements
// loop budget    32 elements without padding: 4 loads, 8 FMIN/FMAX: 4 cycles on A76 (0.13 per
//                element)
void minmax_f32_f16_neon_fp16(const MinMaxArgs& args) {
  // Without padding, all pixels are one.
  const bool dense = args.src.channels == args.src.stride;
  const std::int64_t pixels = dense ? 1 : args.src.pixels;
  const std::int64_t channels = dense ? args.src.pixels * args.src.channels : args.src.channels;
  const uint16x8_t lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  const uint16x8_t tail = vcltq_u16(lanes, vdupq_n_u16(static_cast<std::uint16_t>(channels % 8)));

  const HalfRange first(load_broadcast(args.src.data));
  HalfRange chains[kChains] = {first, first, first, first};
  for (std::int64_t p = 0; p < pixels; ++p) {
    const half* src = args.src.data + p * args.src.stride;
    const half* const end = src + channels;
    for (; end - src >= 8 * kChains; src += 8 * kChains) {
#pragma GCC unroll 4
      for (int i = 0; i < kChains; ++i) chains[i].extend(load(src + 8 * i));
    }
    for (; end - src >= 8; src += 8) chains[0].extend(load(src));
    if (src != end) chains[1].extend(vbslq_f16(tail, load(src), load_broadcast(src)));
  }
  chains[0].extend(chains[1]);
  chains[2].extend(chains[3]);
  chains[0].extend(chains[2]);
  *args.range = chains[0].reduce();
}

}  // namespace qpp
