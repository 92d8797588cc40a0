// SPDX-License-Identifier: Apache-2.0
#include "ops/pixel_shuffle.h"

#include <algorithm>
#include <utility>

namespace qpp {
namespace {

/// Visits the pixels of the large image beside those of the small one, which has r * r times as
/// many channels: move(place of the small pixel, place of the large one, first of its channels).
template <typename Move>
void for_pixels(const Shape& small, const Shape& large, std::int64_t r, ThreadPool& pool,
                const Move& move) {
  pool.parallel_for(small.batch * small.height,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t row = begin; row < end; ++row) {
                        for (std::int64_t x = 0; x < small.width; ++x) {
                          const std::int64_t from = (row * small.width + x) * small.stride();
                          for (std::int64_t i = 0; i < r; ++i) {
                            const std::int64_t to = (row * r + i) * large.width + x * r;
                            for (std::int64_t j = 0; j < r; ++j)
                              move(from, (to + j) * large.stride(), i * r + j);
                          }
                        }
                      }
                    });
}

template <typename T>
void shuffle(const RunArgs& args, std::int64_t r, bool inverse, ThreadPool& pool) {
  const T* src = static_cast<const T*>(args.inputs[0].data);
  T* dst = static_cast<T*>(args.output.data);
  const Shape& input = args.inputs[0].shape;
  const Shape& output = args.output.shape;
  if (inverse) {
    for_pixels(output, input, r, pool,
               [&](std::int64_t small, std::int64_t large, std::int64_t first) {
                 T* to = dst + small;
                 for (std::int64_t c = 0; c < input.channels; ++c)
                   to[c * r * r + first] = src[large + c];
                 std::fill(to + output.channels, to + output.stride(), T{});
               });
  } else {
    for_pixels(input, output, r, pool,
               [&](std::int64_t small, std::int64_t large, std::int64_t first) {
                 T* to = dst + large;
                 for (std::int64_t c = 0; c < output.channels; ++c)
                   to[c] = src[small + c * r * r + first];
                 std::fill(to + output.channels, to + output.stride(), T{});
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
