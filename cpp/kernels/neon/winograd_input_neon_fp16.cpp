// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <type_traits>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kGroups = 4;  // of channels, which share a cache line
constexpr int kStrip = 4;   // tiles whose columns are transformed before their rows
constexpr int kColumns = kStrip * kWinogradTile + 3;  // the last is for an odd rest

constexpr float kA = kWinogradA;
constexpr float kB = 2 * kWinogradA;

QPP_NEON_INLINE float16x8_t broadcast(float value) {
  return vdupq_n_f16(static_cast<float16_t>(value));
}

/// Two rows or columns that are transformed in step, so that no operation waits for the one before.
struct Two {
  float16x8_t first;
  float16x8_t second;
};

/// x + constant * y and x - constant * y. Volatile, to keep the order in which SourceTransform
/// uses each vector for the last time when an FMLA overwrites it: otherwise the compiler makes
/// copies.
QPP_NEON_INLINE Two add_product(Two x, float16x8_t constant, Two y) {
  asm volatile("fmla %0.8h, %1.8h, %2.8h" : "+w"(x.first) : "w"(constant), "w"(y.first));
  asm volatile("fmla %0.8h, %1.8h, %2.8h" : "+w"(x.second) : "w"(constant), "w"(y.second));
  return x;
}
QPP_NEON_INLINE Two subtract_product(Two x, float16x8_t constant, Two y) {
  asm volatile("fmls %0.8h, %1.8h, %2.8h" : "+w"(x.first) : "w"(constant), "w"(y.first));
  asm volatile("fmls %0.8h, %1.8h, %2.8h" : "+w"(x.second) : "w"(constant), "w"(y.second));
  return x;
}

/// B^T times six vectors of a row or column of a patch, two at a time: 24 operations.
struct SourceTransform {
  float16x8_t a = broadcast(kA);
  float16x8_t b = broadcast(kB);
  float16x8_t b_twice = broadcast(2 * kB);
  float16x8_t a2 = broadcast(kA * kA);
  float16x8_t b2 = broadcast(kB * kB);
  float16x8_t a2_plus_b2 = broadcast(kA * kA + kB * kB);
  float16x8_t a2b2 = broadcast(kA * kA * kB * kB);  // rounded, by 7e-5

  /// d(j) loads the j-th vectors, again(3) and again(4) the same from one more load, put(j, ...)
  /// stores the result: FMLA overwrites its addend, so vectors that begin several sums are
  /// loaded for each, and of two results that differ in a sign the second is made of the first.
  template <typename Load, typename Again, typename Store>
  QPP_NEON_INLINE void operator()(const Load& d, const Again& again, const Store& put) const {
    const Two d1 = d(1);
    const Two d2 = d(2);
    const Two odd_a = subtract_product(again(3), b2, d1);
    const Two even_a = subtract_product(again(4), b2, d2);
    const Two d3 = d(3);
    const Two even_b = subtract_product(again(4), a2, d2);
    const Two half_t5 = subtract_product(d(5), a2, d3);
    const Two odd_b = subtract_product(d3, a2, d1);
    const Two half_t0 = subtract_product(d(4), a2_plus_b2, d2);
    const Two t1 = add_product(even_a, a, odd_a);
    const Two t0 = add_product(half_t0, a2b2, d(0));
    const Two t3 = add_product(even_b, b, odd_b);
    const Two t5 = subtract_product(half_t5, b2, odd_b);
    put(1, t1);
    put(0, t0);
    put(3, t3);
    put(5, t5);
    put(2, subtract_product(t1, b, odd_a));
    put(4, subtract_product(t3, b_twice, odd_b));
  }
};

/// The columns of a strip after their transform, for eight channels.
using Columns = float16x8_t[kColumns][kWinogradPatch];

QPP_NEON_INLINE void clear(Columns& columns, std::int64_t begin, std::int64_t end) {
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

// v[point, tile, c] = (B^T d B)[point], winograd.h, for eight channels of a strip of tiles
//
// src            fp16 or int8 NHWC, six rows; columns outside the row count as zero points
// v              fp16, winograd_v_index()
// preconditions  sources are readable up to a multiple of 8 channels; no over-read of columns
// registers      2 * 6 sums, 2 * 3 sources in use more than once, 7 constants
// loop budget    a tile and 8 channels: 10 transforms (4 columns, which neighbours share, and 6
//                rows) of 12 operations, 60 stores, each a slot of the vector pipes: 90 cycles on
//                A76. int8 sources take 2 slots each to convert: 24 cycles more
// choices        modelled A76, 56x56x64: 111 cycles, those for the columns that strips of four
//                tiles share among them. Two columns or rows go in step, and all sums of a
//                transform before any is finished, since a chain that waits fills the issue queue.
//                A strip's columns stay in the first-level cache until its rows are made (strips
//                of 16: 8 cycles more); the channels of a cache line are taken together, so that
//                it is fetched once and while others are at work, for fp16 in a loop unrolled so
//                that each load steps from pixel to pixel, which the prefetcher follows (14
//                cycles). V is written with a stride that spreads the points over the sets of the
//                cache (a power of two: 38 cycles more)
template <typename Src, typename Load>
QPP_NEON_INLINE void transform_groups(const WinogradInputArgs& args, std::int64_t c,
                                      std::int64_t groups, const Load& load_source) {
  const SourceTransform transform;
  Columns columns[kGroups];
  const std::int64_t count = args.tiles * kWinogradTile + 2;
  const std::int64_t begin = std::clamp<std::int64_t>(-args.first_column, 0, count);
  const std::int64_t end = std::clamp<std::int64_t>(args.width - args.first_column, begin, count);
  const Src* rows[kWinogradPatch];
#pragma GCC unroll 6
  for (int i = 0; i < kWinogradPatch; ++i) {
    rows[i] =
        static_cast<const Src*>(args.rows[i]) + (args.first_column + begin) * args.pixel_stride + c;
  }
  for (std::int64_t x = begin; x < end; x += 2) {
    const std::int64_t next = x + 1 < end ? args.pixel_stride : 0;  // the last one twice, if odd
    const auto transform_group = [&](std::int64_t g) QPP_NEON_INLINE_LAMBDA {
      const Src* rows_again[] = {rows[3], rows[4]};
      transform([&](int i) { return Two{load_source(rows[i]), load_source(rows[i] + next)}; },
                [&](int i) {
                  const Src*& row = rows_again[i - 3];
                  // A copy takes less time than a second conversion of int8.
                  if (std::is_same_v<Src, half>) forget(row);
                  return Two{load_source(row), load_source(row + next)};
                },
                [&](int i, const Two& column) {
                  columns[g][x][i] = column.first;
                  columns[g][x + 1][i] = column.second;
                });
#pragma GCC unroll 6
      for (const Src*& row : rows) row += kWinogradGroup;
    };
    // Unrolled, int8 sources in memory would take the convolution 4 % longer.
    if constexpr (std::is_same_v<Src, half>) {
#pragma GCC unroll 4
      for (std::int64_t g = 0; g < groups; ++g) transform_group(g);
    } else {
#pragma GCC unroll 1
      for (std::int64_t g = 0; g < groups; ++g) transform_group(g);
    }
#pragma GCC unroll 6
    for (const Src*& row : rows) row += 2 * args.pixel_stride - groups * kWinogradGroup;
  }

  const std::int64_t channels = round_up<std::int64_t>(args.channels, kWinogradGroup);
  const std::int64_t point_stride = winograd_v_point_stride(args.block_tiles, channels);
  for (std::int64_t g = 0; g < groups; ++g) {
    clear(columns[g], 0, begin);
    clear(columns[g], end, count);
    for (std::int64_t t = 0; t < args.tiles; ++t) {
      half* dst = static_cast<half*>(args.v) + winograd_v_index(0, args.first_tile + t,
                                                                c + g * kWinogradGroup,
                                                                args.block_tiles, channels);
#pragma GCC unroll 1
      for (int i = 0; i < kWinogradPatch; i += 2) {
        const float16x8_t* source = &columns[g][t * kWinogradTile][i];
        const float16x8_t* source_again = source;
        transform(
            [&](int j) { return Two{source[j * kWinogradPatch], source[j * kWinogradPatch + 1]}; },
            [&](int j) {
              forget(source_again);
              return Two{source_again[j * kWinogradPatch], source_again[j * kWinogradPatch + 1]};
            },
            [&](int j, const Two& two_rows) {
              store(dst + j * point_stride, two_rows.first);
              store(dst + (kWinogradPatch + j) * point_stride, two_rows.second);
            });
        dst += 2 * kWinogradPatch * point_stride;
      }
    }
  }
}

/// Transforms the first `groups` groups of channels.
template <typename Src, typename Load>
QPP_NEON_INLINE void transform_all(const WinogradInputArgs& args, std::int64_t groups,
                                   const Load& load_source) {
  WinogradInputArgs strip = args;
  for (std::int64_t t = 0; t < args.tiles; t += kStrip) {
    strip.first_column = args.first_column + t * kWinogradTile;
    strip.first_tile = args.first_tile + t;
    strip.tiles = std::min<std::int64_t>(kStrip, args.tiles - t);
    for (std::int64_t g = 0; g < groups; g += kGroups) {
      transform_groups<Src>(strip, g * kWinogradGroup, std::min<std::int64_t>(groups - g, kGroups),
                            load_source);
    }
  }
}

}  // namespace

void winograd4_input_f16_f16_neon_fp16(const WinogradInputArgs& args) {
  const std::int64_t whole = args.channels / kWinogradGroup;
  const std::int64_t rest = args.channels % kWinogradGroup;
  transform_all<half>(args, whole, AllOfHalf());
  if (rest > 0) transform_groups<half>(args, whole * kWinogradGroup, 1, FirstOfHalf(rest));
}

void winograd4_input_f16_qai8_neon_fp16(const WinogradInputArgs& args) {
  // The padding of the last channels meets weights of zero.
  transform_all<std::int8_t>(args, round_up<std::int64_t>(args.channels, 8) / kWinogradGroup,
                             AllOfInt8(args.zero_point));
}

}  // namespace qpp
