// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/neon/half_range.h"
#include "kernels/neon/output_stage_neon.h"
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// Six vectors of one row or column of sums, times A^T.
QPP_NEON_INLINE void transform_sums(const float16x8_t (&m)[kWinogradPatch],
                                    float16x8_t (&z)[kWinogradTile]) {
  const float16x8_t two = vdupq_n_f16(2);
  const float16x8_t four = vdupq_n_f16(4);
  const float16x8_t eight = vdupq_n_f16(8);
  const float16x8_t even_a = vaddq_f16(m[1], m[2]);
  const float16x8_t odd_a = vsubq_f16(m[1], m[2]);
  const float16x8_t even_b = vaddq_f16(m[3], m[4]);
  const float16x8_t odd_b = vsubq_f16(m[3], m[4]);
  z[0] = vaddq_f16(vaddq_f16(m[0], even_a), even_b);
  z[3] = vfmaq_f16(vaddq_f16(m[5], odd_a), eight, odd_b);
  z[1] = vfmaq_f16(odd_a, two, odd_b);
  z[2] = vfmaq_f16(even_a, four, even_b);
}

/// A residual, eight filters of a pixel at a time, or none.
class NoResidual {
 public:
  using Element = half;
  static constexpr bool kSome = false;

  QPP_NEON_INLINE explicit NoResidual(const ResidualStage& /*stage*/) {}
  [[nodiscard]] QPP_NEON_INLINE float16x8_t add(float16x8_t level, const half* /*src*/) const {
    return level;
  }
};

class HalfResidual {
 public:
  using Element = half;
  static constexpr bool kSome = true;

  QPP_NEON_INLINE explicit HalfResidual(const ResidualStage& stage)
      : scale_(vdupq_n_f16(static_cast<float16_t>(stage.scale))) {}
  [[nodiscard]] QPP_NEON_INLINE float16x8_t add(float16x8_t level, const half* src) const {
    return vfmaq_f16(level, load(src), scale_);
  }
  QPP_NEON_INLINE static void copy(half* dst, const half* src) { store(dst, load(src)); }

 private:
  float16x8_t scale_;
};

class Int8Residual {
 public:
  using Element = std::int8_t;
  static constexpr bool kSome = true;

  QPP_NEON_INLINE explicit Int8Residual(const ResidualStage& stage)
      : scale_(vdupq_n_f16(static_cast<float16_t>(stage.scale))),
        zero_(vdupq_n_f16(static_cast<float16_t>(1536 + stage.zero_point))) {}
  /// Between 1024 and 2048 a unit in the last place of fp16 is 1: elements are added to the bits.
  [[nodiscard]] QPP_NEON_INLINE float16x8_t add(float16x8_t level, const std::int8_t* src) const {
    const int16x8_t bits = vreinterpretq_s16_f16(vdupq_n_f16(1536));
    const float16x8_t shifted = vreinterpretq_f16_s16(vaddw_s8(bits, vld1_s8(src)));
    return vfmaq_f16(level, vsubq_f16(shifted, zero_), scale_);
  }
  QPP_NEON_INLINE static void copy(std::int8_t* dst, const std::int8_t* src) {
    vst1_s8(dst, vld1_s8(src));
  }

 private:
  float16x8_t scale_;
  float16x8_t zero_;
};

/// How levels are changed before they are stored.
enum class Limit : std::uint8_t { none, lower_bound, both_bounds, tanh_and_both_bounds };

/// OutputStage for eight filters in fp16: from Z to levels.
template <Limit kLimit, typename Residual>
class HalfStage {
 public:
  QPP_NEON_INLINE HalfStage(const OutputStage& stage, const half* constants)
      : constants_(constants),
        residual_(stage.residual),
        lo_(vdupq_n_f16(static_cast<float16_t>(stage.lo))),
        hi_(vdupq_n_f16(static_cast<float16_t>(stage.hi))),
        post_scale_(stage.post_scale) {}

  /// The levels of z[i, 0 .. 3], whose residuals are `stride` elements apart. Constants are loaded
  /// for each use.
  QPP_NEON_INLINE void levels(int i, float16x8_t (&z)[kWinogradTile],
                              const Residual::Element* residual, std::int64_t stride) const {
    const half* constants = constants_;
#pragma GCC unroll 4
    for (int j = 0; j < kWinogradTile; ++j) {
      forget(constants);
      const float16x8_t level = vfmaq_f16(load(constants + winograd_constant_index(0, 0)), z[j],
                                          load(constants + winograd_constant_index(0, 1 + i + j)));
      z[j] = limit(residual_.add(level, residual + j * stride));
    }
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE float16x8_t limit(float16x8_t level) const {
    if (kLimit == Limit::none) return level;
    if (kLimit == Limit::tanh_and_both_bounds) {
      const Float8 wide = to_float32(level);
      level = narrow({vmulq_n_f32(tanh_shared(wide.low), post_scale_),
                      vmulq_n_f32(tanh_shared(wide.high), post_scale_)});
    }
    const float16x8_t above = vmaxq_f16(level, lo_);
    return kLimit == Limit::lower_bound ? above : vminq_f16(above, hi_);
  }

  const half* constants_;
  Residual residual_;
  float16x8_t lo_;
  float16x8_t hi_;
  float post_scale_;
};

/// Stores eight filters of pixels, and measures their range if it is wanted.
template <bool kRange>
class HalfWriter {
 public:
  using Dst = half;

  QPP_NEON_INLINE explicit HalfWriter(const OutputStage& stage) : stage_range_(stage.range) {}
  QPP_NEON_INLINE void write_row(half* dst, std::int64_t stride,
                                 const float16x8_t (&levels)[kWinogradTile]) const {
#pragma GCC unroll 4
    for (int j = 0; j < kWinogradTile; ++j) store(dst + j * stride, levels[j]);
  }
  QPP_NEON_INLINE void copy_pixel(half* dst, const half* src) {
    const float16x8_t pixel = load(src);
    store(dst, pixel);
    measure(pixel);
  }
  QPP_NEON_INLINE void measure(float16x8_t levels) {
    if (kRange) range_.extend(levels);
  }
  QPP_NEON_INLINE void finish() const {
    if (kRange) extend_range(*stage_range_, range_.reduce());
  }

 private:
  Range* stage_range_;
  HalfRange range_;
};

/// Stores eight filters of pixels as int8, rounded half to even.
class Int8Writer {
 public:
  using Dst = std::int8_t;

  QPP_NEON_INLINE explicit Int8Writer(const OutputStage& stage)
      : zero_point_(vdupq_n_s8(static_cast<std::int8_t>(stage.zero_point))) {}
  QPP_NEON_INLINE void write_row(std::int8_t* dst, std::int64_t stride,
                                 const float16x8_t (&levels)[kWinogradTile]) const {
    write_two(dst, stride, levels[0], levels[1]);
    write_two(dst + 2 * stride, stride, levels[2], levels[3]);
  }
  QPP_NEON_INLINE void copy_pixel(std::int8_t* dst, const std::int8_t* src) const {
    vst1_s8(dst, vld1_s8(src));
  }
  QPP_NEON_INLINE void measure(float16x8_t) const {}
  QPP_NEON_INLINE void finish() const {}

 private:
  QPP_NEON_INLINE void write_two(std::int8_t* dst, std::int64_t stride, float16x8_t first,
                                 float16x8_t second) const {
    const int8x16_t bytes =
        vaddq_s8(vuzp1q_s8(round_to_low_byte(first), round_to_low_byte(second)), zero_point_);
    vst1_s8(dst, vget_low_s8(bytes));
    vst1_s8(dst + stride, vget_high_s8(bytes));
  }
  /// Between 1024 and 2048 a unit in the last place of fp16 is 1: the even bytes are the integers.
  QPP_NEON_INLINE static int8x16_t round_to_low_byte(float16x8_t level) {
    return vreinterpretq_s8_f16(vaddq_f16(level, vdupq_n_f16(1536)));
  }

  int8x16_t zero_point_;
};

/// Copies the part of a tile that is inside of the image.
template <typename Residual>
QPP_NEON_INLINE void copy_inside(const WinogradOutputArgs& args, std::int64_t columns,
                                 const typename Residual::Element* src,
                                 typename Residual::Element* dst) {
  for (std::int64_t i = 0; i < std::min<std::int64_t>(args.rows, kWinogradTile); ++i) {
    for (std::int64_t j = 0; j < std::min<std::int64_t>(columns, kWinogradTile); ++j) {
      Residual::copy(dst + (i * kWinogradTile + j) * kWinogradGroup,
                     src + i * args.residual_row_stride + j * args.dst_pixel_stride);
    }
  }
}

// dst[4 y + i, 4 x + j, f] = output((A^T m A)[i, j] * a^(i + j)), winograd.h, eight filters
//
// m              fp16, winograd_m_index()
// dst            fp16 or int8, NHWC; elements outside of the image are not written
// preconditions  none on alignment; no over-read
// registers      24 for the rows of a tile, 3 constants, the rest in passing; multipliers and bias
//                are loaded for each use
// loop budget    a tile: 36 loads, 10 transforms of 10 operations, 16 FMLA, 16 FMAX (16 FMIN for an
//                upper bound), 16 stores: 148 slots of the vector pipes, 74 cycles on A76. A
//                residual: 16 loads and 16 FMLA, of int8 32 slots more, 8 or 24 cycles
// choices        modelled A76: 85 cycles
template <typename Writer, Limit kLimit, typename Residual>
QPP_NEON_INLINE void output(const WinogradOutputArgs& args) {
  using Dst = Writer::Dst;
  using Element = Residual::Element;
  const HalfStage<kLimit, Residual> stage(*args.output, static_cast<const half*>(args.constants));
  Writer writer(*args.output);
  // NOLINTNEXTLINE(misc-const-correctness): only instances with a residual write it
  Element residual_aside[kWinogradTile * kWinogradTile * kWinogradGroup];
  std::byte aside[kWinogradTile * kWinogradTile * kWinogradGroup * sizeof(Dst)];
  const half* m = static_cast<const half*>(args.m);
  for (std::int64_t tile = 0; tile < args.tiles; ++tile, m += kWinogradGroup) {
    float16x8_t columns[kWinogradTile][kWinogradPatch];
#pragma GCC unroll 6
    for (int j = 0; j < kWinogradPatch; ++j) {
      float16x8_t column[kWinogradPatch];
      float16x8_t z[kWinogradTile];
#pragma GCC unroll 6
      for (int i = 0; i < kWinogradPatch; ++i) {
        column[i] = load(m + winograd_m_index(i * kWinogradPatch + j, 0, 0));
      }
      transform_sums(column, z);
#pragma GCC unroll 4
      for (int i = 0; i < kWinogradTile; ++i) columns[i][j] = z[i];
      asm("" ::: "memory");  // all loads at once would need more registers than there are
    }

    // A tile that sticks out of the image is written to a buffer, and its inner part copied.
    const std::int64_t columns_left = args.columns - tile * kWinogradTile;
    const bool whole = args.rows >= kWinogradTile && columns_left >= kWinogradTile;
    Dst* dst = static_cast<Dst*>(args.dst) + tile * kWinogradTile * args.dst_pixel_stride;
    Dst* const to = whole ? dst : reinterpret_cast<Dst*>(aside);
    const std::int64_t row_stride = whole ? args.dst_row_stride : kWinogradTile * kWinogradGroup;
    const std::int64_t pixel_stride = whole ? args.dst_pixel_stride : kWinogradGroup;
    const auto* residual = static_cast<const Element*>(args.residual);
    std::int64_t residual_row_stride = args.residual_row_stride;
    if constexpr (Residual::kSome) {
      residual += tile * kWinogradTile * args.dst_pixel_stride;
      if (!whole) {
        copy_inside<Residual>(args, columns_left, residual, residual_aside);
        residual = residual_aside;
        residual_row_stride = row_stride;
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kWinogradTile; ++i) {
      float16x8_t z[kWinogradTile];
      transform_sums(columns[i], z);
      stage.levels(i, z, residual + i * residual_row_stride, pixel_stride);
      writer.write_row(to + i * row_stride, pixel_stride, z);
      if (!whole) continue;
#pragma GCC unroll 4
      for (const float16x8_t levels : z) writer.measure(levels);
    }
    if (whole) continue;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(args.rows, kWinogradTile); ++i) {
      for (std::int64_t j = 0; j < std::min<std::int64_t>(columns_left, kWinogradTile); ++j) {
        writer.copy_pixel(
            dst + i * args.dst_row_stride + j * args.dst_pixel_stride,
            reinterpret_cast<const Dst*>(aside) + (i * kWinogradTile + j) * kWinogradGroup);
      }
    }
  }
  writer.finish();
}

template <typename Writer>
QPP_NEON_INLINE void output(const WinogradOutputArgs& args) {
  if (args.residual != nullptr && args.output->residual.dtype == DType::qai8) {
    output<Writer, Limit::both_bounds, Int8Residual>(args);
  } else if (args.residual != nullptr) {
    output<Writer, Limit::both_bounds, HalfResidual>(args);
  } else if (args.output->nonlinearity == Nonlinearity::tanh) {
    output<Writer, Limit::tanh_and_both_bounds, NoResidual>(args);
  } else if (args.output->hi < INFINITY) {
    output<Writer, Limit::both_bounds, NoResidual>(args);
  } else if (args.output->lo > -INFINITY) {
    output<Writer, Limit::lower_bound, NoResidual>(args);
  } else {
    output<Writer, Limit::none, NoResidual>(args);
  }
}

}  // namespace

void winograd4_output_f16_f16_neon_fp16(const WinogradOutputArgs& args) {
  if (args.output->range != nullptr) {
    output<HalfWriter<true>>(args);
  } else {
    output<HalfWriter<false>>(args);
  }
}

void winograd4_output_qai8_f16_neon_fp16(const WinogradOutputArgs& args) {
  output<Int8Writer>(args);
}

}  // namespace qpp
