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

/// The sums of a window for kVectors times 8 channels, in int16 as long as nothing can overflow.
/// Two vectors hide each other's latency.
template <int kVectors>
class WindowSums {
 public:
  QPP_NEON_INLINE WindowSums(const PoolArgs& args, std::int64_t pixel, std::int64_t channel) {
    for (int v = 0; v < kVectors; ++v) {
      parts_[v] = vdupq_n_s16(0);
      low_[v] = high_[v] = vdupq_n_s32(args.correction);
    }
    constexpr std::int64_t kWithinInt16 = 255;  // 255 * -128 fits
    std::int64_t room = kWithinInt16;
    for (std::int64_t r = 0; r < args.row_count; ++r) {
      const auto* src = static_cast<const std::int8_t*>(args.rows[r]) +
                        pixel * args.stride * args.channels + channel;
      for (std::int64_t left = args.width; left > 0;) {
        const std::int64_t count = left < room ? left : room;
        for (std::int64_t k = 0; k < count; ++k, src += args.channels) add(src);
        left -= count;
        room -= count;
        if (room == 0) {
          flush();
          room = kWithinInt16;
        }
      }
    }
    flush();
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 mean(int v, float32x4_t multiplier) const {
    return {vmulq_f32(vcvtq_f32_s32(low_[v]), multiplier),
            vmulq_f32(vcvtq_f32_s32(high_[v]), multiplier)};
  }

 private:
  QPP_NEON_INLINE void add(const std::int8_t* src) {
    if constexpr (kVectors == 2) {
      const int8x16_t values = vld1q_s8(src);
      parts_[0] = vaddw_s8(parts_[0], vget_low_s8(values));
      parts_[1] = vaddw_high_s8(parts_[1], values);
    } else {
      parts_[0] = vaddw_s8(parts_[0], vld1_s8(src));
    }
  }
  QPP_NEON_INLINE void flush() {
    for (int v = 0; v < kVectors; ++v) {
      low_[v] = vaddw_s16(low_[v], vget_low_s16(parts_[v]));
      high_[v] = vaddw_high_s16(high_[v], parts_[v]);
      parts_[v] = vdupq_n_s16(0);
    }
  }

  int16x8_t parts_[kVectors];
  int32x4_t low_[kVectors];
  int32x4_t high_[kVectors];
};

/// Calls `store(index of the first element, 8 means)` for all pixels and channels.
template <typename Store>
QPP_NEON_INLINE void avg_pool(const PoolArgs& args, const Store& store) {
  const float32x4_t multiplier = vdupq_n_f32(args.multiplier);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    const std::int64_t begin = p * args.channels;
    std::int64_t c = 0;
    for (; c + 16 <= args.channels; c += 16) {
      const WindowSums<2> sums(args, p, c);
      store(begin + c, sums.mean(0, multiplier));
      store(begin + c + 8, sums.mean(1, multiplier));
    }
    if (c < args.channels) store(begin + c, WindowSums<1>(args, p, c).mean(0, multiplier));
  }
}

}  // namespace

// dst[p, c] = the largest of window(p, c), see pool.h
//
// rows, dst      int8, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// registers      20 columns of 3x3 windows of 64 channels
// loop budget    3x3, stride 2, 2 pixels of 64 channels: 48 loads, 32 + 16 SMAX, 8 stores: 56
//                slots, 28 cycles on A76 (0.22 an output element)
// choices        modelled A76, 112x112x64, which comes from the third-level cache: 84 k cycles; 16
//                channels at a time, which meet each line four times: 119 k
void maxpool_qai8_qai8_neon(const PoolArgs& args) {
  std::int64_t c = 0;
  max_pool<Line<Int8x16>>(args, c);
  max_pool<Int8x16>(args, c);
  max_pool<Int8x8>(args, c);
}

// sum = window_sum(p, c) + correction, dst[p, c] = half(sum * multiplier)
//
// rows, dst      int8 and fp16, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// loop budget    16 channels: a load and 2 SADDW for each tap, 44 slots a pixel
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
// loop budget    16 channels: a load and 2 SADDW for each tap, 44 slots a pixel
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
          sum = add(sum, to_float32(load(static_cast<const half*>(args.rows[r]) + at)));
      }
      store(static_cast<half*>(args.dst) + p * args.channels + c,
            narrow({vmulq_f32(sum.low, multiplier), vmulq_f32(sum.high, multiplier)}));
    }
  }
}

}  // namespace qpp
