// SPDX-License-Identifier: Apache-2.0
#include "kernels/resize.h"

#include "kernels/variants.h"

namespace qpp {
namespace {

/// Calls store(index, row tap, top left, top right, bottom left, bottom right, column tap).
template <typename T, typename Store>
void for_corners(const ResizeArgs& args, const Store& store) {
  const auto* top = static_cast<const T*>(args.top);
  const auto* bottom = static_cast<const T*>(args.bottom);
  for (std::int64_t r = 0; r < args.row_count; ++r) {
    for (std::int64_t x = 0; x < args.pixel_count; ++x) {
      const ResizeTap& column = args.columns[x];
      for (std::int64_t c = 0; c < args.channels; ++c) {
        const std::int64_t first = column.first * args.channels + c;
        const std::int64_t second = column.second * args.channels + c;
        static_cast<T*>(args.dst)[(r * args.pixel_count + x) * args.channels + c] =
            store(args.rows[r], column, top[first], top[second], bottom[first], bottom[second]);
      }
    }
  }
}

half between(half a, half b, half weight) {
  const double difference = to_float(to_half(to_float(b) - to_float(a)));
  // The product is exact in double, and what its sum rounds off is too far down to matter.
  const double value = difference * to_float(weight) + to_float(a);
  return to_half(static_cast<float>(value));
}

int across(std::int8_t a, std::int8_t b, const ResizeTap& column) {
  const int weight = (column.fixed + 256) >> 9;
  return a * (64 - weight) + b * weight;
}

}  // namespace

void resize_f16_f16_ref(const ResizeArgs& args) {
  for_corners<half>(args, [](const ResizeTap& row, const ResizeTap& column, half top_left,
                             half top_right, half bottom_left, half bottom_right) {
    const half top = between(top_left, top_right, column.weight);
    const half bottom = between(bottom_left, bottom_right, column.weight);
    return between(top, bottom, row.weight);
  });
}

void resize_qai8_qai8_ref(const ResizeArgs& args) {
  for_corners<std::int8_t>(
      args, [](const ResizeTap& row, const ResizeTap& column, std::int8_t top_left,
               std::int8_t top_right, std::int8_t bottom_left, std::int8_t bottom_right) {
        const int top = across(top_left, top_right, column);
        const int bottom = across(bottom_left, bottom_right, column);
        const int down = ((bottom - top) * 2 * row.fixed + (1 << 15)) >> 16;
        return static_cast<std::int8_t>((top + down + 32) >> 6);
      });
}

}  // namespace qpp
