// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "network/qp_table.h"
#include "ops/op.h"
#include "support.h"

namespace qpp::test {

/// A tensor whose padding channels hold values that would spoil every statistic.
struct Sample {
  Shape shape;
  std::vector<half> data;
  std::vector<float> sorted;

  explicit Sample(const Shape& dimensions, std::uint64_t seed) : shape(dimensions) {
    Random random(seed);
    data.resize(static_cast<std::size_t>(shape.elements()));
    for (std::size_t i = 0; i < data.size(); ++i) {
      const bool padding = static_cast<std::int64_t>(i) % shape.stride() >= shape.channels;
      data[i] = to_half(padding ? 60000.0F : random.next() * random.next() * 3);
      if (!padding) sorted.push_back(to_float(data[i]));
    }
    std::sort(sorted.begin(), sorted.end());
  }
  [[nodiscard]] TensorView view() {
    return {.data = data.data(), .dtype = DType::f16, .shape = shape};
  }
};

/// Prepares and runs an operation that writes no value.
inline void run(Op& op, const TensorView& input, QpTable& table) {
  ThreadPool pool(1);
  op.prepare(std::span(&input.shape, 1), 1);
  AlignedVector<std::byte> scratch(op.scratch_bytes());
  RunState state = table.state(pool);
  op.run({.inputs = std::span(&input, 1), .output = {}, .scratch = scratch.data()}, state);
}

}  // namespace qpp::test
