// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/resize.h"
#include "kernels/variants.h"

namespace qpp {

// dst[r][x][c] = bilinear interpolation in integers, see resize.h
//
// top, bottom    int8, NHWC rows; dst int8
// preconditions  channels % 8 == 0; reads the pixels that `columns` names, writes the output rows
// registers      4 for weights, 6 for 8 channels
// loop budget    8 channels of a column: 4 loads, 4 SMULL/SMLAL on V0, 1 SUB; then for each output
//                row SQRDMULH (two slots on V0), ADD, SQRSHRN on V1, 1 store: enlarging twice 7.5
//                slots an output vector, 3.8 cycles on A76 (0.5 an element)
void resize_qai8_qai8_neon(const ResizeArgs& caller_args) {
  const ResizeArgs args = caller_args;  // stores of bytes could change the original
  const auto* top = static_cast<const std::int8_t*>(args.top);
  const auto* bottom = static_cast<const std::int8_t*>(args.bottom);
  const std::int64_t row_stride = args.pixel_count * args.channels;
  for (std::int64_t x = 0; x < args.pixel_count; ++x) {
    const ResizeTap& column = args.columns[x];
    const auto weight = static_cast<std::int8_t>((column.fixed + 256) >> 9);
    const int8x8_t right = vdup_n_s8(weight);
    const int8x8_t left = vdup_n_s8(static_cast<std::int8_t>(64 - weight));
    const std::int64_t first = column.first * args.channels;
    const std::int64_t second = column.second * args.channels;
    for (std::int64_t c = 0; c < args.channels; c += 8) {
      const auto across = [&](const std::int8_t* row) {
        return vmlal_s8(vmull_s8(vld1_s8(row + first + c), left), vld1_s8(row + second + c), right);
      };
      const int16x8_t upper = across(top);
      const int16x8_t difference = vsubq_s16(across(bottom), upper);
      auto* dst = static_cast<std::int8_t*>(args.dst) + x * args.channels + c;
      for (std::int64_t r = 0; r < args.row_count; ++r) {
        const int16x8_t down = vqrdmulhq_s16(difference, vld1q_dup_s16(&args.rows[r].fixed));
        vst1_s8(dst, vqrshrn_n_s16(vaddq_s16(upper, down), 6));
        dst += row_stride;
      }
    }
  }
}

}  // namespace qpp
