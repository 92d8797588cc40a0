// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/output_stage_neon.h"
#include "kernels/neon/pool_window.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

struct Int8x16 {
  using value_type = std::int8_t;
  using type = int8x16_t;
  QPP_NEON_INLINE static type load(const value_type* src) { return vld1q_s8(src); }
  QPP_NEON_INLINE static void store(value_type* dst, type value) { vst1q_s8(dst, value); }
  QPP_NEON_INLINE static type larger(type a, type b) { return vmaxq_s8(a, b); }
};

struct Int8x8 {
  using value_type = std::int8_t;
  using type = int8x8_t;
  QPP_NEON_INLINE static type load(const value_type* src) { return vld1_s8(src); }
  QPP_NEON_INLINE static void store(value_type* dst, type value) { vst1_s8(dst, value); }
  QPP_NEON_INLINE static type larger(type a, type b) { return vmax_s8(a, b); }
};

struct Int32x8 {
  int32x4_t low;
  int32x4_t high;
};

/// The sum of a window for 8 channels, in int16 as long as nothing can overflow.
QPP_NEON_INLINE Int32x8 window_sum(const PoolArgs& args, std::int64_t pixel, std::int64_t channel) {
  constexpr std::int64_t kWithinInt16 = 255;  // 255 * -128 fits
  Int32x8 sum = {vdupq_n_s32(args.correction), vdupq_n_s32(args.correction)};
  for (std::int64_t r = 0; r < args.row_count; ++r) {
    const auto* src = static_cast<const std::int8_t*>(args.rows[r]) +
                      pixel * args.stride * args.channels + channel;
    for (std::int64_t k = 0; k < args.width;) {
      const std::int64_t end = k + kWithinInt16 < args.width ? k + kWithinInt16 : args.width;
      int16x8_t part = vdupq_n_s16(0);
      for (; k < end; ++k) part = vaddw_s8(part, vld1_s8(src + k * args.channels));
      sum.low = vaddw_s16(sum.low, vget_low_s16(part));
      sum.high = vaddw_high_s16(sum.high, part);
    }
  }
  return sum;
}

/// Calls `store(index of the first element, 8 means)` for all pixels and channels.
template <typename Store>
QPP_NEON_INLINE void avg_pool(const PoolArgs& args, const Store& store) {
  const float32x4_t multiplier = vdupq_n_f32(args.multiplier);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; c += 8) {
      const Int32x8 sum = window_sum(args, p, c);
      store(p * args.channels + c, Float8{vmulq_f32(vcvtq_f32_s32(sum.low), multiplier),
                                          vmulq_f32(vcvtq_f32_s32(sum.high), multiplier)});
    }
  }
}

}  // namespace

// dst[p, c] = the largest of window(p, c), see pool.h
//
// rows, dst      int8, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// registers      9 columns and constants of a 3x3 window
// loop budget    3x3, stride 2, 2 pixels of 16 channels: 12 loads, 8 + 4 SMAX, 2 stores: 14 slots,
// 7
//                cycles on A76 (0.22 an output element)
void maxpool_qai8_qai8_neon(const PoolArgs& args) {
  std::int64_t c = 0;
  for (; c + 16 <= args.channels; c += 16) max_pool_channels<Int8x16>(args, c);
  if (c < args.channels) max_pool_channels<Int8x8>(args, c);
}

// sum = window_sum(p, c) + correction, dst[p, c] = half(sum * multiplier)
//
// rows, dst      int8 and fp16, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// loop budget    8 channels: a load and a SADDW for each tap, 4 slots a row, 20 a pixel
void avgpool_f16_qai8_neon(const PoolArgs& args) {
  avg_pool(args, [&](std::int64_t i, const Float8& value) {
    store(static_cast<half*>(args.dst) + i, narrow(value));
  });
}

// sum = window_sum(p, c) + correction
// dst[p, c] = round_half_even(clamp(sum * multiplier, lo, hi)) + zero_point
//
// rows, dst      int8, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// loop budget    8 channels: a load and a SADDW for each tap, 4 slots a row, 20 a pixel
void avgpool_qai8_qai8_neon(const PoolArgs& args) {
  const float32x4_t lo = vdupq_n_f32(args.lo);
  const float32x4_t hi = vdupq_n_f32(args.hi);
  const int8x8_t zero_point = vdup_n_s8(static_cast<std::int8_t>(args.zero_point));
  avg_pool(args, [&](std::int64_t i, const Float8& level) {
    const int8x16_t bytes =
        round_to_low_bytes({clamp_level(level.low, lo, hi), clamp_level(level.high, lo, hi)});
    vst1_s8(static_cast<std::int8_t*>(args.dst) + i,
            vadd_s8(vget_low_s8(vuzp1q_s8(bytes, bytes)), zero_point));
  });
}

// dst[p, c] = half(sum * multiplier), sum in float, column by column
//
// rows, dst      fp16, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// loop budget    8 channels: for each tap a load, 2 FCVTL of two slots on V0, 2 FADD
void avgpool_f16_f16_neon(const PoolArgs& args) {
  const float32x4_t multiplier = vdupq_n_f32(args.multiplier);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; c += 8) {
      Float8 sum = {vdupq_n_f32(0), vdupq_n_f32(0)};
      for (std::int64_t k = 0; k < args.width; ++k) {
        const std::int64_t at = (p * args.stride + k) * args.channels + c;
        for (std::int64_t r = 0; r < args.row_count; ++r)
          sum = add(sum, widen(load(static_cast<const half*>(args.rows[r]) + at)));
      }
      store(static_cast<half*>(args.dst) + p * args.channels + c,
            narrow({vmulq_f32(sum.low, multiplier), vmulq_f32(sum.high, multiplier)}));
    }
  }
}

}  // namespace qpp
