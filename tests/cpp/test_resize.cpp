// SPDX-License-Identifier: Apache-2.0
//
// Resizing (taps, groups of rows, threads) against plain loops.

#include <doctest/doctest.h>

#include <cmath>

#include "network/qp_table.h"
#include "ops/resize.h"
#include "support.h"

namespace qpp {
namespace {

std::vector<std::int8_t> run(Resize& op, std::vector<std::int8_t>& data, const Shape& shape,
                             int threads) {
  QpTable table(0, 0);
  ThreadPool pool(threads);
  const Shape output = op.prepare(std::span(&shape, 1), threads);
  std::vector<std::int8_t> result(static_cast<std::size_t>(output.elements()));
  const TensorView input{.data = data.data(), .dtype = DType::qai8, .shape = shape};
  RunState state = table.state(pool);
  op.run({.inputs = std::span(&input, 1),
          .output = {.data = result.data(), .dtype = DType::qai8, .shape = output}},
         state);
  return result;
}

/// Source coordinate of an output pixel.
double place(std::int64_t index, std::int64_t input, std::int64_t output, const ResizeSpec& spec) {
  const double step = static_cast<double>(input) / static_cast<double>(output);
  if (spec.mode == ResizeMode::nearest) return std::floor(static_cast<double>(index) * step);
  if (spec.align_corners) {
    return output == 1 ? 0
                       : static_cast<double>(index * (input - 1)) / static_cast<double>(output - 1);
  }
  return std::max((static_cast<double>(index) + 0.5) * step - 0.5, 0.0);
}

struct Case {
  Shape input;
  Size2d output;
};

const std::vector<Case> kCases = {{{1, 4, 5, 3}, {8, 10}},
                                  {{2, 3, 3, 24}, {24, 12}},
                                  {{1, 7, 9, 8}, {3, 20}},
                                  {{3, 1, 2, 40}, {4, 1}},
                                  {{1, 5, 6, 16}, {5, 6}}};

}  // namespace

TEST_CASE("int8 images of both modes and both alignments") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Case& test : kCases) {
    for (const int mode : {0, 1, 2}) {
      CAPTURE(to_string(test.input));
      CAPTURE(mode);
      const ResizeSpec spec{.name = "r",
                            .mode = mode == 0 ? ResizeMode::nearest : ResizeMode::bilinear,
                            .align_corners = mode == 2,
                            .size = test.output};
      test::Random random(5);
      std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()));
      for (auto& value : data) value = static_cast<std::int8_t>(random.next() * 127);
      Resize op(spec, DType::qai8, selection);
      const auto result = run(op, data, test.input, 1);
      CHECK(run(op, data, test.input, 3) == result);
      const std::int64_t stride = test.input.stride();
      for (std::size_t i = 0; i < result.size(); ++i) {
        const auto at = static_cast<std::int64_t>(i);
        const std::int64_t pixel = at / stride;
        const std::int64_t row = pixel / test.output.width;
        const double y =
            place(row % test.output.height, test.input.height, test.output.height, spec);
        const double x =
            place(pixel % test.output.width, test.input.width, test.output.width, spec);
        const auto value = [&](double top, double left) {
          const std::int64_t sy = std::min(static_cast<std::int64_t>(top), test.input.height - 1);
          const std::int64_t sx = std::min(static_cast<std::int64_t>(left), test.input.width - 1);
          const std::int64_t n = row / test.output.height;
          return static_cast<double>(data[static_cast<std::size_t>(
              ((n * test.input.height + sy) * test.input.width + sx) * stride + at % stride)]);
        };
        const double fy = y - std::floor(y);
        const double fx = x - std::floor(x);
        const double expected = (1 - fy) * ((1 - fx) * value(y, x) + fx * value(y, x + 1)) +
                                fy * ((1 - fx) * value(y + 1, x) + fx * value(y + 1, x + 1));
        // Weights have a resolution of 1/256, which sizes that are powers of two times others need.
        CHECK(std::abs(result[i] - expected) < (mode == 0 ? 1e-9 : 1.6));
      }
    }
  }
}

TEST_CASE("scales snap to 1, and nearest ones to 2, where sizes do") {
  static constexpr Shape kShape{.batch = 1, .height = 1, .width = 7, .channels = 8};
  const auto columns = [](ResizeMode mode, double scale, bool snap) {
    Resize op({.name = "r", .mode = mode, .size = {}, .scale_width = scale, .snap_scale = snap},
              DType::qai8, KernelSelection::from_environment());
    std::vector<std::int8_t> data(static_cast<std::size_t>(kShape.elements()));
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::int8_t>(i / 8 * 10);
    const std::vector<std::int8_t> all = run(op, data, kShape, 1);
    std::vector<int> result;
    for (std::size_t i = 0; i < all.size(); i += 8) result.push_back(all[i]);
    return result;
  };
  const std::vector<int> same = {0, 10, 20, 30, 40, 50, 60};
  CHECK(columns(ResizeMode::nearest, 1.1, true) == same);
  CHECK(columns(ResizeMode::bilinear, 1.1, true) == same);
  CHECK(columns(ResizeMode::nearest, 1.1, false) == std::vector<int>{0, 0, 10, 20, 30, 40, 50});
  CHECK(columns(ResizeMode::nearest_exact, 1.1, true) ==
        columns(ResizeMode::nearest_exact, 1.1, false));
  CHECK(columns(ResizeMode::nearest, 2.1, true) == columns(ResizeMode::nearest, 2, false));
  CHECK(columns(ResizeMode::nearest, 2.1, false) != columns(ResizeMode::nearest, 2, false));
  CHECK(columns(ResizeMode::bilinear, 2.1, true) == columns(ResizeMode::bilinear, 2.1, false));
}

TEST_CASE("a scale that leaves nothing is refused by name") {
  const ResizeSpec spec{.name = "r", .size = {}, .scale_height = 0.1, .scale_width = 1};
  Resize op(spec, DType::f16, KernelSelection::from_environment());
  const Shape shape{.batch = 1, .height = 9, .width = 9, .channels = 8};
  CHECK_THROWS_WITH_AS(op.prepare(std::span(&shape, 1), 1),
                       "node 'r' (resize): the output would be empty for the input [1, 8, 9, 9]",
                       ShapeError);
}

}  // namespace qpp
