// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/depthwise_blocks.h"
#include "kernels/neon/depthwise_store.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr std::int64_t kColumnWeights = 8 * kDepthwiseQuad;

/// Up to four rows of a column for 8 channels, those of a channel together: [r0 r1 r2 r3].
struct Column {
  int8x16_t low;
  int8x16_t high;
};

QPP_NEON_INLINE int8x16_t load_pixel(const std::int8_t* src) {
  return vcombine_s8(vld1_s8(src), vdup_n_s8(0));
}

QPP_NEON_INLINE Column load_weights(const std::int8_t* weights) {
  return {vld1q_s8(weights), vld1q_s8(weights + 16)};
}

/// The last row is used for rows beyond it, whose weights are zeros.
template <typename Source>
QPP_NEON_INLINE Column load_column(const Source& columns, const std::byte* const* rows,
                                   int row_count, std::int64_t k, std::int64_t count) {
  const auto row = [&](int r) { return load_pixel(columns.at(rows[r], k, count)); };
  const int8x16_t r0 = row(0);
  int16x8_t upper;
  int16x8_t lower;
  if (row_count == 1) {
    upper = lower = vreinterpretq_s16_s8(vzip1q_s8(r0, r0));
  } else {
    const int8x16_t r2 = row(row_count > 2 ? 2 : 1);
    upper = vreinterpretq_s16_s8(vzip1q_s8(r0, row(1)));
    lower = vreinterpretq_s16_s8(vzip1q_s8(r2, row_count > 3 ? row(3) : r2));
  }
  return {vreinterpretq_s8_s16(vzip1q_s16(upper, lower)),
          vreinterpretq_s8_s16(vzip2q_s16(upper, lower))};
}

/// Added to the bits of this float, integers below 2^22 are added to its value: one subtraction
/// then replaces a conversion, which takes two slots.
constexpr float kFloatZero = 3 << 22;

struct Sums {
  int32x4_t low;
  int32x4_t high;

  QPP_NEON_INLINE void add(const Column& column, const Column& weights) {
    low = vdotq_s32(low, column.low, weights.low);
    high = vdotq_s32(high, column.high, weights.high);
  }

  [[nodiscard]] QPP_NEON_INLINE Float8 to_float() const {
    const float32x4_t zero = vdupq_n_f32(kFloatZero);
    return {vsubq_f32(vreinterpretq_f32_s32(low), zero),
            vsubq_f32(vreinterpretq_f32_s32(high), zero)};
  }
};

/// Adds the products of the rows from ky on, at most four, of an unrolled kernel.
template <int kSize, int kStride, typename Source, int kPixels>
QPP_NEON_INLINE void add_rows(const Source& columns, const std::int8_t* const* rows, int row_count,
                              const Column (&taps)[kSize], Sums (&sums)[kPixels]) {
  const std::byte* begins[kDepthwiseQuad];
#pragma GCC unroll 4
  for (int r = 0; r < row_count; ++r) begins[r] = columns.begin(rows[r]);
  constexpr int kColumns = (kPixels - 1) * kStride + kSize;
#pragma GCC unroll 11
  for (int k = 0; k < kColumns; ++k) {
    const Column source = load_column(columns, begins, row_count, k, kColumns);
#pragma GCC unroll 4
    for (int q = 0; q < kPixels; ++q) {
      const int kx = k - q * kStride;
      if (kx >= 0 && kx < kSize) sums[q].add(source, taps[kx]);
    }
  }
}

/// The same of any kernel.
template <typename Source, int kPixels>
QPP_NEON_INLINE void add_rows(const DepthwiseArgs& args, const Source& columns, std::int64_t c,
                              std::int64_t ky, const std::int8_t* weights, Sums (&sums)[kPixels]) {
  const std::int64_t left = args.kernel_height - ky;
  const int row_count = left < kDepthwiseQuad ? static_cast<int>(left) : kDepthwiseQuad;
  const std::byte* begins[kDepthwiseQuad] = {};  // GCC 14 takes reads of row_count for reads of all
  for (int r = 0; r < row_count; ++r)
    begins[r] = columns.begin(static_cast<const std::int8_t*>(args.rows[ky + r]) + c);
  for (std::int64_t kx = 0; kx < args.kernel_width; ++kx) {
    const Column tap = load_weights(weights + kx * kColumnWeights);
#pragma GCC unroll 4
    for (int q = 0; q < kPixels; ++q) {
      const std::int64_t k = q * args.stride + kx * args.dilation;
      sums[q].add(load_column(columns, begins, row_count, k, 0), tap);
    }
  }
}

/// A row of the output for 8 channels from `c` on.
template <typename Dst, int kSize, int kStride>
QPP_NEON_INLINE void convolve(const DepthwiseArgs& args, std::int64_t c) {
  const std::int64_t quads = (args.kernel_height + kDepthwiseQuad - 1) / kDepthwiseQuad;
  const std::int64_t quad_weights = args.kernel_width * kColumnWeights;
  const std::int8_t* packed =
      static_cast<const std::int8_t*>(args.weights) + c / 8 * quads * quad_weights;
  ChannelOutput<kSize == 0> output(*args.output, c);
  std::int32_t start[8];
  for (int i = 0; i < 8; i += 4) {
    vst1q_s32(start + i, vaddq_s32(vld1q_s32(args.output->correction + c + i),
                                   vreinterpretq_s32_f32(vdupq_n_f32(kFloatZero))));
  }
  const std::int32_t* begin = start;
  auto* dst = static_cast<Dst*>(args.dst) + c;
  const std::int8_t* rows[kSize == 0 ? 1 : kSize];
  // NOLINTNEXTLINE(misc-const-correctness): only instances of a known size write it
  Column taps[kSize == 0 ? 1 : kSize];
  if constexpr (kSize > 0) {
#pragma GCC unroll 5
    for (int ky = 0; ky < kSize; ++ky)
      rows[ky] = static_cast<const std::int8_t*>(args.rows[ky]) + c;
#pragma GCC unroll 5
    for (int kx = 0; kx < kSize; ++kx) taps[kx] = load_weights(packed + kx * kColumnWeights);
  }
  for_depthwise_blocks(
      args, [&](auto pixels, auto border, std::int64_t first) QPP_NEON_INLINE_LAMBDA {
        constexpr int kPixels = pixels();
        constexpr int kTested = kSize / 2;
        const Columns<std::int8_t, border(), kTested> columns(args, c, first);
        Sums sums[kPixels];
#pragma GCC unroll 4
        for (Sums& sum : sums) {
          forget(begin);
          sum = {vld1q_s32(begin), vld1q_s32(begin + 4)};
        }
        if constexpr (kSize == 3) {
          add_rows<kSize, kStride>(columns, rows, 3, taps, sums);
        } else if constexpr (kSize == 5) {
          Column own[kSize];
          const std::int8_t* weights = packed;
          forget(weights);  // or all would be held, in memory
#pragma GCC unroll 5
          for (int kx = 0; kx < kSize; ++kx) own[kx] = load_weights(weights + kx * kColumnWeights);
          add_rows<kSize, kStride>(columns, rows, 4, own, sums);
#pragma GCC unroll 5
          for (int kx = 0; kx < kSize; ++kx)
            own[kx] = load_weights(weights + (kSize + kx) * kColumnWeights);
          add_rows<kSize, kStride>(columns, rows + 4, 1, own, sums);
        } else {
          for (std::int64_t quad = 0; quad < quads; ++quad)
            add_rows(args, columns, c, quad * kDepthwiseQuad, packed + quad * quad_weights, sums);
        }
        Float8 floats[kPixels];
#pragma GCC unroll 4
        for (int q = 0; q < kPixels; ++q) floats[q] = sums[q].to_float();
        output.store(floats, dst + first * args.channels, args.channels);
      });
}

template <typename Dst>
void convolve(const DepthwiseArgs& args) {
  choose_depthwise_shape(args, [&args](auto size, auto stride) {
    const DepthwiseArgs own = args;  // stores of bytes could change the original
    for (std::int64_t c = 0; c < own.channels; c += 8) convolve<Dst, size(), stride()>(own, c);
  });
}

}  // namespace

// dst[p][c] = output( correction[c] + sum over ky, kx of
//                     window(p, ky, kx)[c] * weights[c][ky][kx] ), see depthwise.h
//
// rows, dst      int8, NHWC; weights [c / 8][ky / 4][kx][c % 8][4] int8, see depthwise.h
// preconditions  channels % 8 == 0; reads `width` pixels of each row and one of padding, writes
//                pixel_count of dst
// registers      2 weights for a column of the kernel, 8 sums, 2 for a column, 7 for the output
//                stage
// loop budget    4 pixels of 8 channels, 3x3: 18 loads and 24 ZIP for 6 columns (stride 2: 27 and
//                36 for 9), 24 SDOT; then 8 FSUB, 8 FMLA, 16 FMAX/FMIN, 8 FADD, 6 UZP, 2 ADD, 4
//                stores: 100 slots, 50 cycles on A76 (1.6 an output element; stride 2: 112 slots,
//                1.8); 5x5: 188 slots (2.9; stride 2: 209, 3.3)
void depthwise_qai8_qai8_qsi8cx_neon_dotprod(const DepthwiseArgs& args) {
  convolve<std::int8_t>(args);
}

// The same with half(level) as output: 8 FCVTN of two slots in place of 16 that round.
//
// loop budget    3x3: 100 slots, 50 cycles on A76 (1.6 an output element)
void depthwise_f16_qai8_qsi8cx_neon_dotprod(const DepthwiseArgs& args) { convolve<half>(args); }

}  // namespace qpp
