// SPDX-License-Identifier: Apache-2.0
#include "ops/flatten.h"

#include <algorithm>

namespace qpp {

Shape Flatten::prepare(std::span<const Shape> inputs, int /*threads*/) {
  const Shape& src = inputs[0];
  return {.batch = src.batch,
          .height = 1,
          .width = 1,
          .channels = src.channels * src.height * src.width};
}

void Flatten::run(const RunArgs& args, RunState& state) const {
  const Shape src_shape = args.inputs[0].shape;
  const Shape dst_shape = args.output.shape;
  const std::int64_t pixels = src_shape.height * src_shape.width;
  state.pool.parallel_for(
      src_shape.batch, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        for (std::int64_t n = begin; n < end; ++n) {
          const half* src = args.inputs[0].as<half>() + n * pixels * src_shape.stride();
          half* dst = args.output.as<half>() + n * dst_shape.stride();
          for (std::int64_t p = 0; p < pixels; ++p) {
            for (std::int64_t c = 0; c < src_shape.channels; ++c)
              dst[c * pixels + p] = src[p * src_shape.stride() + c];
          }
          std::fill(dst + dst_shape.channels, dst + dst_shape.stride(), half{});
        }
      });
}

}  // namespace qpp
