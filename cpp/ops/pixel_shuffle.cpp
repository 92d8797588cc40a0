// SPDX-License-Identifier: Apache-2.0
#include "ops/pixel_shuffle.h"

#include <algorithm>
#include <utility>

namespace qpp {
namespace {

/// Visits the small image of r * r times as many channels, pixel by pixel, beside the r * r pixels
/// of the large one: move(small pixel, large pixel, offset of the first of its channels).
template <typename T, typename Move>
void for_pixels(const Shape& small, const Shape& large, std::int64_t r, T* small_data,
                T* large_data, ThreadPool& pool, const Move& move) {
  pool.parallel_for(small.batch * small.height,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t row = begin; row < end; ++row) {
                        for (std::int64_t x = 0; x < small.width; ++x) {
                          T* pixel = small_data + (row * small.width + x) * small.stride();
                          for (std::int64_t i = 0; i < r; ++i) {
                            for (std::int64_t j = 0; j < r; ++j) {
                              const std::int64_t at = (row * r + i) * large.width + x * r + j;
                              move(pixel, large_data + at * large.stride(), i * r + j);
                            }
                          }
                        }
                      }
                    });
}

template <typename T>
void shuffle(const RunArgs& args, std::int64_t r, bool inverse, ThreadPool& pool) {
  T* src = static_cast<T*>(args.inputs[0].data);
  T* dst = static_cast<T*>(args.output.data);
  const Shape& shape = args.output.shape;
  if (inverse) {
    const std::int64_t channels = args.inputs[0].shape.channels;
    for_pixels(shape, args.inputs[0].shape, r, dst, src, pool,
               [&](T* small, const T* large, std::int64_t first) {
                 for (std::int64_t c = 0; c < channels; ++c) small[c * r * r + first] = large[c];
                 std::fill(small + shape.channels, small + shape.stride(), T{});
               });
  } else {
    for_pixels(args.inputs[0].shape, shape, r, src, dst, pool,
               [&](const T* small, T* large, std::int64_t first) {
                 for (std::int64_t c = 0; c < shape.channels; ++c)
                   large[c] = small[c * r * r + first];
                 std::fill(large + shape.channels, large + shape.stride(), T{});
               });
  }
}

}  // namespace

PixelShuffle::PixelShuffle(std::string name, std::int64_t factor, bool inverse, DType dtype)
    : name_(std::move(name)), factor_(factor), inverse_(inverse), dtype_(dtype) {}

Shape PixelShuffle::prepare(std::span<const Shape> inputs, int /*threads*/) {
  const Shape& src = inputs[0];
  const std::int64_t r = factor_;
  if (inverse_) {
    QPP_CHECK(src.height % r == 0 && src.width % r == 0, ShapeError, "node '", name_,
              "' (pixel_unshuffle): expected rows and columns divisible by ", r, ", got ",
              to_string(src));
    return {.batch = src.batch,
            .height = src.height / r,
            .width = src.width / r,
            .channels = src.channels * r * r};
  }
  QPP_CHECK(src.channels % (r * r) == 0, ShapeError, "node '", name_,
            "' (pixel_shuffle): expected channels divisible by ", r * r, ", got ", to_string(src));
  return {.batch = src.batch,
          .height = src.height * r,
          .width = src.width * r,
          .channels = src.channels / (r * r)};
}

void PixelShuffle::run(const RunArgs& args, RunState& state) const {
  if (dtype_ == DType::qai8) {
    shuffle<std::int8_t>(args, factor_, inverse_, state.pool);
  } else {
    shuffle<half>(args, factor_, inverse_, state.pool);
  }
}

}  // namespace qpp
