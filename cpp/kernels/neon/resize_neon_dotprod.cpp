// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <type_traits>

#include "kernels/neon/vectors.h"
#include "kernels/resize.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// A sum of products begins with half a step, and with the constant that makes int8 of byte 1
/// again: sources are unsigned for UDOT, 128 higher.
constexpr std::uint32_t kStart = 128 + (128 << 8);

/// The four corners of up to 16 channels, those of a channel together.
struct Corners {
  uint8x16_t channels[4];
};

QPP_NEON_INLINE Corners interleave(uint8x16_t top_first, uint8x16_t top_second,
                                   uint8x16_t bottom_first, uint8x16_t bottom_second) {
  const auto pairs = [](uint8x16_t value) { return vreinterpretq_u16_u8(value); };
  const auto bytes = [](uint16x8_t value) { return vreinterpretq_u8_u16(value); };
  const uint16x8_t top_low = pairs(vzip1q_u8(top_first, top_second));
  const uint16x8_t top_high = pairs(vzip2q_u8(top_first, top_second));
  const uint16x8_t bottom_low = pairs(vzip1q_u8(bottom_first, bottom_second));
  const uint16x8_t bottom_high = pairs(vzip2q_u8(bottom_first, bottom_second));
  return {{bytes(vzip1q_u16(top_low, bottom_low)), bytes(vzip2q_u16(top_low, bottom_low)),
           bytes(vzip1q_u16(top_high, bottom_high)), bytes(vzip2q_u16(top_high, bottom_high))}};
}

QPP_NEON_INLINE uint8x16_t load(const std::uint8_t* src, bool whole) {
  const uint8x16_t value = whole ? vld1q_u8(src) : vcombine_u8(vld1_u8(src), vdup_n_u8(0));
  return veorq_u8(value, vdupq_n_u8(0x80));
}

/// The corners' weights, in the low half.
QPP_NEON_INLINE uint8x8_t load_corner_weights(const std::uint8_t* src) {
  std::uint32_t weights = 0;
  std::memcpy(&weights, src, kCorners);
  return vreinterpret_u8_u32(vset_lane_u32(weights, vdup_n_u32(0), 0));
}

/// Eight output channels, in the upper byte of each element.
QPP_NEON_INLINE uint16x8_t blend(const std::uint32_t*& start, uint8x16_t low, uint8x16_t high,
                                 uint8x8_t weights) {
  forget(start);  // loaded as a pair, not moved
  return vuzp1q_u16(vreinterpretq_u16_u32(vdotq_lane_u32(vld1q_u32(start), low, weights, 0)),
                    vreinterpretq_u16_u32(vdotq_lane_u32(vld1q_u32(start + 4), high, weights, 0)));
}

/// kRows output rows from number `begin` on.
template <int kRows>
QPP_NEON_INLINE void resize_rows(const ResizeArgs& args, const std::uint32_t* start,
                                 std::int64_t begin) {
  const auto* top = static_cast<const std::uint8_t*>(args.top);
  const auto* bottom = static_cast<const std::uint8_t*>(args.bottom);
  const std::int64_t channels = args.channels;
  const std::int64_t row_stride = args.pixel_count * channels;
  const std::uint8_t* weights[kRows];
  for (int r = 0; r < kRows; ++r) weights[r] = args.corners[begin + r];
  auto* dst = static_cast<std::uint8_t*>(args.dst) + begin * row_stride;
  for (std::int64_t x = 0; x < args.pixel_count;) {
    const ResizeTap& column = args.columns[x];
    std::int64_t end = x + 1;
    while (end < args.pixel_count && args.columns[end].first == column.first &&
           args.columns[end].second == column.second) {
      ++end;
    }
    const std::int64_t first = column.first * channels;
    const std::int64_t second = column.second * channels;
    const auto run = [&](std::int64_t c, auto whole) QPP_NEON_INLINE_LAMBDA {
      const Corners corners =
          interleave(load(top + first + c, whole()), load(top + second + c, whole()),
                     load(bottom + first + c, whole()), load(bottom + second + c, whole()));
      for (std::int64_t p = x; p < end; ++p) {
        std::uint8_t* out = dst + p * channels + c;
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r, out += row_stride) {
          const uint8x8_t own = load_corner_weights(weights[r] + p * kCorners);
          const uint16x8_t low = blend(start, corners.channels[0], corners.channels[1], own);
          if constexpr (whole()) {
            const uint16x8_t high = blend(start, corners.channels[2], corners.channels[3], own);
            vst1q_u8(out, vuzp2q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
          } else {
            vst1_u8(out, vshrn_n_u16(low, 8));
          }
        }
      }
    };
    std::int64_t c = 0;
    for (; c + 16 <= channels; c += 16) run(c, std::true_type{});
    if (c < channels) run(c, std::false_type{});
    x = end;
  }
}

}  // namespace

// dst[r][x][c] = (sum over the four corners k of corner(x, k)[c] * corners[r][x][k]) + 128 >> 8,
// see resize.h
//
// top, bottom    int8, NHWC rows; dst int8
// preconditions  channels % 8 == 0; reads the pixels that `columns` names, writes the output rows
// registers      4 for 16 channels of the corners, 1 for weights, 4 sums
// loop budget    16 channels between four source pixels: 4 loads, 4 EOR, 8 ZIP; then for each
//                output pixel 4 loads, 4 UDOT, 3 UZP, 1 store: enlarging twice 11 slots an output
//                vector of 16, 5.5 cycles on A76 (0.34 an element), four times 8.8, eight times 8.2
void resize_qai8_qai8_neon_dotprod(const ResizeArgs& caller_args) {
  const ResizeArgs args = caller_args;  // stores of bytes could change the original
  std::uint32_t start[8];
  vst1q_u32(start, vdupq_n_u32(kStart));
  vst1q_u32(start + 4, vdupq_n_u32(kStart));
  std::int64_t row = 0;
  for (; row + 4 <= args.row_count; row += 4) resize_rows<4>(args, start, row);
  for (; row + 2 <= args.row_count; row += 2) resize_rows<2>(args, start, row);
  if (row < args.row_count) resize_rows<1>(args, start, row);
}

}  // namespace qpp
