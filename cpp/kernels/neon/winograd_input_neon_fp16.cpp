// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kColumns = kWinogradMaxStrip * kWinogradTile + 2;

constexpr float kA = kWinogradA;
constexpr float kB = 2 * kWinogradA;

QPP_NEON_INLINE float16x8_t broadcast(float value) {
  return vdupq_n_f16(static_cast<float16_t>(value));
}

/// Six vectors of one row or column of a patch, times B^T.
struct SourceTransform {
  float16x8_t a = broadcast(kA);
  float16x8_t b = broadcast(kB);
  float16x8_t a2 = broadcast(kA * kA);
  float16x8_t b2 = broadcast(kB * kB);
  float16x8_t ab2 = broadcast(kA * kB * kB);

  QPP_NEON_INLINE void operator()(const float16x8_t (&d)[kWinogradPatch],
                                  float16x8_t (&t)[kWinogradPatch]) const {
    const float16x8_t even_a = vfmsq_f16(d[4], b2, d[2]);
    const float16x8_t odd_a = vfmsq_f16(vmulq_f16(a, d[3]), ab2, d[1]);
    t[1] = vaddq_f16(even_a, odd_a);
    t[2] = vsubq_f16(even_a, odd_a);
    t[0] = vfmsq_f16(even_a, a2, vfmsq_f16(d[2], b2, d[0]));
    const float16x8_t even_b = vfmsq_f16(d[4], a2, d[2]);
    const float16x8_t half_odd_b = vfmsq_f16(d[3], a2, d[1]);
    const float16x8_t odd_b = vmulq_f16(b, half_odd_b);
    t[3] = vaddq_f16(even_b, odd_b);
    t[4] = vsubq_f16(even_b, odd_b);
    t[5] = vfmsq_f16(vfmsq_f16(d[5], a2, d[3]), b2, half_odd_b);
  }
};

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
  const Src* rows[kWinogradPatch];
  for (int i = 0; i < kWinogradPatch; ++i) {
    rows[i] = static_cast<const Src*>(args.rows[i]) + args.first_column * args.pixel_stride + c;
  }
  const std::int64_t count = args.tiles * kWinogradTile + 2;
  for (std::int64_t x = 0; x < count; ++x) {
    if (args.first_column + x >= 0 && args.first_column + x < args.width) {
      float16x8_t d[kWinogradPatch];
#pragma GCC unroll 6
      for (int i = 0; i < kWinogradPatch; ++i) d[i] = load_source(rows[i] + x * args.pixel_stride);
      transform(d, columns[x]);
    } else {
      for (float16x8_t& value : columns[x]) value = vdupq_n_f16(0);
    }
  }

  const std::int64_t channels = round_up<std::int64_t>(args.channels, kWinogradGroup);
  const std::int64_t point_stride = args.block_tiles * channels;
  for (std::int64_t t = 0; t < args.tiles; ++t) {
    half* dst = v + winograd_v_index(0, args.first_tile + t, c, args.block_tiles, channels);
    for (int i = 0; i < kWinogradPatch; ++i) {
      float16x8_t d[kWinogradPatch];
      float16x8_t row[kWinogradPatch];
#pragma GCC unroll 6
      for (int j = 0; j < kWinogradPatch; ++j) d[j] = columns[t * kWinogradTile + j][i];
      transform(d, row);
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
