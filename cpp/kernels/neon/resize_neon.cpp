// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/resize.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// What a column's weights make of its two source pixels, for 16 channels.
struct Across {
  int8x16_t left;
  int8x16_t right;

  QPP_NEON_INLINE explicit Across(const ResizeTap& column)
      : right(vdupq_n_s8(static_cast<std::int8_t>((column.fixed + 256) >> 9))) {
    left = vsubq_s8(vdupq_n_s8(64), right);
  }
  [[nodiscard]] QPP_NEON_INLINE int16x8_t low(int8x16_t first, int8x16_t second) const {
    return vmlal_s8(vmull_s8(vget_low_s8(first), vget_low_s8(left)), vget_low_s8(second),
                    vget_low_s8(right));
  }
  [[nodiscard]] QPP_NEON_INLINE int16x8_t high(int8x16_t first, int8x16_t second) const {
    return vmlal_high_s8(vmull_high_s8(first, left), second, right);
  }
};

/// kRows output rows from number `begin` on.
template <int kRows>
QPP_NEON_INLINE void resize_rows(const ResizeArgs& args, std::int64_t begin) {
  const auto* top = static_cast<const std::int8_t*>(args.top);
  const auto* bottom = static_cast<const std::int8_t*>(args.bottom);
  const std::int64_t row_stride = args.pixel_count * args.channels;
  auto* dst = static_cast<std::int8_t*>(args.dst) + begin * row_stride;
  std::int16_t fixed[kRows];
  for (int r = 0; r < kRows; ++r) fixed[r] = args.rows[begin + r].fixed;
  const auto down = [&](int16x8_t upper, int16x8_t difference, int r) {
    return vaddq_s16(upper, vqrdmulhq_n_s16(difference, fixed[r]));
  };
  for (std::int64_t x = 0; x < args.pixel_count; ++x, dst += args.channels) {
    const Across across(args.columns[x]);
    const std::int64_t first = args.columns[x].first * args.channels;
    const std::int64_t second = args.columns[x].second * args.channels;
    std::int64_t c = 0;
    for (; c + 16 <= args.channels; c += 16) {
      const int8x16_t top_first = vld1q_s8(top + first + c);
      const int8x16_t top_second = vld1q_s8(top + second + c);
      const int8x16_t bottom_first = vld1q_s8(bottom + first + c);
      const int8x16_t bottom_second = vld1q_s8(bottom + second + c);
      const int16x8_t low = across.low(top_first, top_second);
      const int16x8_t high = across.high(top_first, top_second);
      const int16x8_t low_difference = vsubq_s16(across.low(bottom_first, bottom_second), low);
      const int16x8_t high_difference = vsubq_s16(across.high(bottom_first, bottom_second), high);
      std::int8_t* out = dst + c;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, out += row_stride) {
        const int8x8_t half = vqrshrn_n_s16(down(low, low_difference, r), 6);
        vst1q_s8(out, vqrshrn_high_n_s16(half, down(high, high_difference, r), 6));
      }
    }
    if (c < args.channels) {
      const auto load = [](const std::int8_t* src) {
        return vcombine_s8(vld1_s8(src), vdup_n_s8(0));
      };
      const int16x8_t low = across.low(load(top + first + c), load(top + second + c));
      const int16x8_t difference =
          vsubq_s16(across.low(load(bottom + first + c), load(bottom + second + c)), low);
      std::int8_t* out = dst + c;
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, out += row_stride)
        vst1_s8(out, vqrshrn_n_s16(down(low, difference, r), 6));
    }
  }
}

}  // namespace

// dst[r][x][c] = bilinear interpolation in integers, see resize.h
//
// top, bottom    int8, NHWC rows; dst int8
// preconditions  channels % 8 == 0; reads the pixels that `columns` names, writes the output rows
// registers      2 for a column's weights, 1 for each row's, 10 for 16 channels
// loop budget    16 channels of a column: 4 loads, 8 SMULL/SMLAL on V0, 2 SUB; then for each output
//                row 2 SQRDMULH (two slots on V0 each), 2 ADD, 2 SQRSHRN on V1, 1 store: enlarging
//                twice 8 slots on V0 an output vector of 16, 8 cycles on A76 (0.5 an element), four
//                times 6, eight times 5
void resize_qai8_qai8_neon(const ResizeArgs& caller_args) {
  const ResizeArgs args = caller_args;  // stores of bytes could change the original
  std::int64_t row = 0;
  for (; row + 8 <= args.row_count; row += 8) resize_rows<8>(args, row);
  for (; row + 4 <= args.row_count; row += 4) resize_rows<4>(args, row);
  for (; row + 2 <= args.row_count; row += 2) resize_rows<2>(args, row);
  if (row < args.row_count) resize_rows<1>(args, row);
}

}  // namespace qpp
