// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/sparsify.h"
#include "network/qp_table.h"
#include "ops/conv2d.h"
#include "ops/op.h"
#include "ops/sparsify.h"
#include "support.h"

namespace qpp::test {

/// A dense + sparse tensor.
struct DenseSparse {
  explicit DenseSparse(const Shape& tensor_shape)
      : shape(tensor_shape),
        dense(static_cast<std::size_t>(shape.elements())),
        list(outlier_bytes(shape)) {}

  TensorView view() {
    return {.data = dense.data(),
            .dtype = DType::qai8,
            .shape = shape,
            .outliers = outliers_of(shape, list.data())};
  }
  /// Makes the tensor from levels, one for each element in memory.
  void fill(const std::vector<int>& levels, const QParams& row) {
    const Outliers outliers = view().outliers;
    for (std::int64_t p = 0; p < shape.pixels(); ++p) {
      OutlierAppender appender(outliers.row(p / shape.width), p % shape.width);
      for (std::int64_t c = 0; c < shape.stride(); ++c) {
        const auto i = static_cast<std::size_t>(p * shape.stride() + c);
        const int kept = std::clamp(levels[i], row.qmin, row.qmax);
        dense[i] = static_cast<std::int8_t>(kept);
        appender.append(p % shape.width * shape.stride() + c, levels[i] - kept);
      }
      appender.end_pixel(p % shape.width);
    }
  }
  /// The levels of all elements, also of an output without outliers.
  std::vector<int> levels() {
    std::vector<int> result(dense.begin(), dense.end());
    const Outliers outliers = view().outliers;
    for (std::int64_t row = 0; row < shape.batch * shape.height; ++row) {
      const OutlierRow entries = outliers.row(row);
      for (std::uint32_t i = 0; i < entries.begins[shape.width]; ++i) {
        const std::int64_t at = row * shape.width * shape.stride() + entries.positions[i];
        result[static_cast<std::size_t>(at)] += steps_of_residual(entries.residuals[i]);
      }
    }
    return result;
  }

  Shape shape;
  std::vector<std::int8_t> dense;
  AlignedVector<std::byte> list;
};

/// From row 0 to row 1, each side with or without a sparse part.
inline Conv2dTypes dense_sparse_types(bool sparse_src, bool sparse_dst) {
  return {.src = DType::qai8,
          .dst = DType::qai8,
          .sparse_src = sparse_src,
          .sparse_dst = sparse_dst,
          .src_row = 0,
          .dst_row = 1};
}

/// The output of a convolution of a dense + sparse source; checks that it is the same on one thread
/// and on three. `extend`: the range of row 1 is extended until outliers fit, as in a network.
inline DenseSparse run_dense_sparse(Op& conv, DenseSparse& input, QpTable& table,
                                    bool extend = false) {
  const auto run = [&](int threads) {
    ThreadPool pool(threads);
    DenseSparse output(conv.prepare(std::span(&input.shape, 1), threads));
    AlignedVector<std::byte> scratch(conv.scratch_bytes(), std::byte{0xff});
    RunState state = table.state(pool);
    const TensorView view = input.view();
    do {
      conv.run({.inputs = std::span(&view, 1), .output = output.view(), .scratch = scratch.data()},
               state);
    } while (extend && extend_to_fit(output.view(), table.qparams[1]));
    return output;
  };
  DenseSparse output = run(1);
  DenseSparse threaded = run(3);
  CHECK(output.dense == threaded.dense);
  CHECK(output.levels() == threaded.levels());
  return output;
}

/// Levels of which a share is beyond a byte, up to `farthest`.
inline std::vector<int> random_levels(const Shape& shape, float density, Random& random,
                                      float farthest = 400) {
  std::vector<int> levels(static_cast<std::size_t>(shape.elements()));
  for (int& level : levels) {
    const bool outlier = (random.next() + 1) / 2 < density;
    level = static_cast<int>(random.next() * (outlier ? farthest : 127.0F));
  }
  return levels;
}

}  // namespace qpp::test
