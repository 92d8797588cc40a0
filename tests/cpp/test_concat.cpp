// SPDX-License-Identifier: Apache-2.0

#include <doctest/doctest.h>

#include <cmath>

#include "network/qp_table.h"
#include "ops/concat.h"
#include "support.h"

namespace qpp {

TEST_CASE("concatenation of int8 brings all inputs to one row, whatever their padding holds") {
  const KernelSelection selection = KernelSelection::from_environment();
  QpTable table(4, 0);
  table.qparams[0] = choose_qparams(-0.7F, 1.3F, 8);
  table.qparams[1] = choose_qparams(0, 2.5F, 8);
  table.qparams[2] = choose_qparams(-1, 0.5F, 8);
  table.qparams[3] = choose_qparams(-1, 2.0F, 8);
  const std::vector<Shape> shapes = {{2, 7, 9, 3}, {2, 7, 9, 18}, {2, 7, 9, 8}};
  test::Random random(6);
  std::vector<std::vector<std::int8_t>> data;
  std::vector<TensorView> inputs;
  for (const Shape& shape : shapes) {
    auto& values = data.emplace_back(static_cast<std::size_t>(shape.elements()));
    for (auto& value : values) value = static_cast<std::int8_t>(random.next() * 127);
  }
  for (std::size_t i = 0; i < shapes.size(); ++i)
    inputs.push_back({.data = data[i].data(), .dtype = DType::qai8, .shape = shapes[i]});

  for (const DType dst : {DType::qai8, DType::f16}) {
    Concat op("c", {.src = DType::qai8, .dst = dst, .src_rows = {0, 1, 2}, .dst_row = 3},
              selection);
    std::vector<std::vector<std::byte>> results;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      const Shape output = op.prepare(shapes, threads);
      CHECK(output.channels == 29);
      AlignedVector<std::byte> scratch(op.scratch_bytes());
      auto& result =
          results.emplace_back(static_cast<std::size_t>(output.elements()) * size_of(dst));
      RunState state = table.state(pool);
      op.run({.inputs = inputs,
              .output = {.data = result.data(), .dtype = dst, .shape = output},
              .scratch = scratch.data()},
             state);
    }
    CHECK(results[0] == results[1]);
    for (std::int64_t pixel = 0; pixel < shapes[0].pixels(); ++pixel) {
      std::int64_t to = pixel * 32;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        for (std::int64_t c = 0; c < shapes[i].channels; ++c, ++to) {
          const QParams& row = table.qparams[i];
          const double value =
              (data[i][static_cast<std::size_t>(pixel * shapes[i].stride() + c)] - row.zero_point) *
              double{row.scale};
          if (dst == DType::f16) {
            const half got = reinterpret_cast<const half*>(results[0].data())[to];
            CHECK(to_float(got) == doctest::Approx(value).epsilon(0.001));
          } else {
            const double level = value / table.qparams[3].scale + table.qparams[3].zero_point;
            const auto got = reinterpret_cast<const std::int8_t*>(results[0].data())[to];
            CHECK(std::abs(got - std::clamp(level, -128.0, 127.0)) < 0.53);
          }
        }
      }
    }
  }
}

TEST_CASE("images of other sizes are refused by name") {
  Concat op("c", {}, KernelSelection::from_environment());
  const std::vector<Shape> shapes = {{1, 4, 4, 8}, {1, 4, 5, 8}};
  CHECK_THROWS_WITH_AS(op.prepare(shapes, 1),
                       "node 'c' (concat): expected inputs that differ in channels only, got [1, "
                       "8, 4, 4] and [1, 8, 4, 5]",
                       ShapeError);
}

}  // namespace qpp
