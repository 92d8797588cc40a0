// SPDX-License-Identifier: Apache-2.0
#include "ops/pixel_shuffle.h"

#include <algorithm>
#include <utility>

namespace qpp {

PixelShuffle::PixelShuffle(std::string name, std::int64_t upscale_factor)
    : name_(std::move(name)), upscale_factor_(upscale_factor) {}

Shape PixelShuffle::prepare(std::span<const Shape> inputs, int /*threads*/) {
  const Shape& src = inputs[0];
  const std::int64_t r = upscale_factor_;
  QPP_CHECK(src.channels % (r * r) == 0, ShapeError, "node '", name_,
            "' (pixel_shuffle): expected channels divisible by ", r * r, ", got ", to_string(src));
  return {.batch = src.batch,
          .height = src.height * r,
          .width = src.width * r,
          .channels = src.channels / (r * r)};
}

void PixelShuffle::run(const RunArgs& args, RunState& state) const {
  const Shape src_shape = args.inputs[0].shape;
  const Shape dst_shape = args.output.shape;
  const std::int64_t r = upscale_factor_;
  const half* src = args.inputs[0].as<half>();
  half* dst = args.output.as<half>();
  state.pool.parallel_for(
      src_shape.batch * src_shape.height,
      [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        for (std::int64_t row = begin; row < end; ++row) {
          for (std::int64_t i = 0; i < r; ++i) {
            half* dst_row = dst + (row * r + i) * dst_shape.width * dst_shape.stride();
            for (std::int64_t x = 0; x < src_shape.width; ++x) {
              const half* src_pixel = src + (row * src_shape.width + x) * src_shape.stride();
              for (std::int64_t j = 0; j < r; ++j) {
                half* dst_pixel = dst_row + (x * r + j) * dst_shape.stride();
                for (std::int64_t c = 0; c < dst_shape.channels; ++c)
                  dst_pixel[c] = src_pixel[(c * r + i) * r + j];
                std::fill(dst_pixel + dst_shape.channels, dst_pixel + dst_shape.stride(), half{});
              }
            }
          }
        }
      });
}

}  // namespace qpp
