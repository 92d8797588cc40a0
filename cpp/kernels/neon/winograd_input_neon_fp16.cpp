// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kColumns = kWinogradMaxBlock * kWinogradTile + 2;

constexpr float kA = kWinogradA;
constexpr float kB = 2 * kWinogradA;

QPP_NEON_INLINE float16x8_t broadcast(float value) {
  return vdupq_n_f16(static_cast<float16_t>(value));
}

/// Six vectors of one row or column of a patch, times B^T: 14 operations.
struct SourceTransform {
  float16x8_t a = broadcast(kA);
  float16x8_t b = broadcast(kB);
  float16x8_t a2 = broadcast(kA * kA);
  float16x8_t b2 = broadcast(kB * kB);
  float16x8_t ab2 = broadcast(kA * kB * kB);

  /// d(j) gives the j-th vector. Two are asked for twice: an FMLS overwrites its first operand, and
  /// to load it again costs the vector pipes nothing, unlike a copy.
  template <typename Vectors>
  QPP_NEON_INLINE void operator()(const Vectors& d, float16x8_t (&t)[kWinogradPatch]) const {
    const float16x8_t d1 = d(1);
    const float16x8_t d2 = d(2);
    const float16x8_t d3 = d(3);
    const float16x8_t even_a = vfmsq_f16(d(4), b2, d2);
    const float16x8_t odd_a = vfmsq_f16(vmulq_f16(a, d3), ab2, d1);
    t[1] = vaddq_f16(even_a, odd_a);
    t[2] = vsubq_f16(even_a, odd_a);
    const float16x8_t even_b = vfmsq_f16(d(4), a2, d2);
    const float16x8_t t5 = vfmsq_f16(d(5), a2, d3);
    const float16x8_t half_odd_b = vfmsq_f16(d(3), a2, d1);
    const float16x8_t odd_b = vmulq_f16(b, half_odd_b);
    t[3] = vaddq_f16(even_b, odd_b);
    t[4] = vsubq_f16(even_b, odd_b);
    t[5] = vfmsq_f16(t5, b2, half_odd_b);
    t[0] = vfmsq_f16(even_a, a2, vfmsq_f16(d2, b2, d(0)));
  }
};

QPP_NEON_INLINE void clear(float16x8_t (*columns)[kWinogradPatch], std::int64_t begin,
                           std::int64_t end) {
  for (std::int64_t x = begin; x < end; ++x) {
    for (float16x8_t& value : columns[x]) value = vdupq_n_f16(0);
  }
}

/// Eight fp16 channels.
struct AllOfHalf {
  QPP_NEON_INLINE float16x8_t operator()(const half* src) const { return load(src); }
};

/// The first channels of eight, zeros for the others.
struct FirstOfHalf {
  uint16x8_t mask;

  QPP_NEON_INLINE explicit FirstOfHalf(std::int64_t channels)
      : mask(vcltq_u16(uint16x8_t{0, 1, 2, 3, 4, 5, 6, 7},
                       vdupq_n_u16(static_cast<std::uint16_t>(channels)))) {}
  QPP_NEON_INLINE float16x8_t operator()(const half* src) const { return load_masked(src, mask); }
};

/// Eight int8 channels in sixteenths of a step from the zero point.
struct AllOfInt8 {
  float16x8_t origin;  // 96 + zero_point / 16

  QPP_NEON_INLINE explicit AllOfInt8(std::int32_t zero_point)
      : origin(vreinterpretq_f16_s16(
            vaddq_s16(vdupq_n_s16(k96), vdupq_n_s16(static_cast<std::int16_t>(zero_point))))) {}
  QPP_NEON_INLINE float16x8_t operator()(const std::int8_t* src) const {
    return vsubq_f16(vreinterpretq_f16_s16(vaddw_s8(vdupq_n_s16(k96), vld1_s8(src))), origin);
  }

 private:
  static constexpr std::int16_t k96 = 0x5600;  // 96 in fp16, where a unit in the last place is 1/16
};

/// V of eight channels. Sources are transformed in two passes, first columns, which neighbouring
/// tiles share, then rows.
template <typename Src, typename Load>
QPP_NEON_INLINE void transform_group(const WinogradInputArgs& args, std::int64_t c, half* v,
                                     const Load& load_source) {
  const SourceTransform transform;
  float16x8_t columns[kColumns][kWinogradPatch];
  const std::int64_t count = args.tiles * kWinogradTile + 2;
  const std::int64_t begin = std::clamp<std::int64_t>(-args.first_column, 0, count);
  const std::int64_t end = std::clamp<std::int64_t>(args.width - args.first_column, begin, count);
  const Src* rows[kWinogradPatch];
#pragma GCC unroll 6
  for (int i = 0; i < kWinogradPatch; ++i) {
    rows[i] =
        static_cast<const Src*>(args.rows[i]) + (args.first_column + begin) * args.pixel_stride + c;
  }
  clear(columns, 0, begin);
  clear(columns, end, count);
  for (std::int64_t x = begin, offset = 0; x < end; ++x, offset += args.pixel_stride) {
    transform([&](int i) { return load_source(rows[i] + offset); }, columns[x]);
  }

  const std::int64_t channels = round_up<std::int64_t>(args.channels, kWinogradGroup);
  const std::int64_t point_stride = winograd_v_point_stride(args.block_tiles, channels);
  for (std::int64_t t = 0; t < args.tiles; ++t) {
    half* dst = v + winograd_v_index(0, args.first_tile + t, c, args.block_tiles, channels);
#pragma GCC unroll 1
    for (int i = 0; i < kWinogradPatch; ++i) {
      const float16x8_t* source = &columns[t * kWinogradTile][i];
      float16x8_t row[kWinogradPatch];
      transform(
          [&](int j) {
            forget(source);
            return source[j * kWinogradPatch];
          },
          row);
#pragma GCC unroll 6
      for (const float16x8_t value : row) {
        store(dst, value);
        dst += point_stride;
      }
    }
  }
}

}  // namespace

void winograd4_input_f16_f16_neon_fp16(const WinogradInputArgs& args) {
  half* v = static_cast<half*>(args.v);
  std::int64_t c = 0;
  for (; c + 8 <= args.channels; c += 8) transform_group<half>(args, c, v, AllOfHalf());
  if (c < args.channels) transform_group<half>(args, c, v, FirstOfHalf(args.channels - c));
}

void winograd4_input_f16_qai8_neon_fp16(const WinogradInputArgs& args) {
  // What lies in the last channels' padding meets weights of zero.
  const AllOfInt8 load_source(args.zero_point);
  for (std::int64_t c = 0; c < args.channels; c += 8) {
    transform_group<std::int8_t>(args, c, static_cast<half*>(args.v), load_source);
  }
}

}  // namespace qpp
