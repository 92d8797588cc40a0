// SPDX-License-Identifier: Apache-2.0
//
// Binary operations (broadcast, threads, rows of the QP table) against plain loops.

#include <doctest/doctest.h>

#include <cmath>

#include "network/qp_table.h"
#include "ops/elementwise.h"
#include "support.h"

namespace qpp {
namespace {

const std::vector<Shape> kShapes = {{1, 5, 7, 3}, {2, 3, 4, 24}, {3, 1, 1, 40}, {2, 9, 2, 8}};

template <typename Src, typename Dst>
std::vector<Dst> run(Binary& op, std::vector<Src>& a, const Shape& a_shape, std::vector<Src>& b,
                     const Shape& b_shape, QpTable& table, int threads) {
  constexpr DType kSrc = sizeof(Src) == 1 ? DType::qai8 : DType::f16;
  constexpr DType kDst = sizeof(Dst) == 1 ? DType::qai8 : DType::f16;
  ThreadPool pool(threads);
  const std::vector<Shape> shapes = {a_shape, b_shape};
  const Shape output = op.prepare(shapes, threads);
  std::vector<Dst> result(static_cast<std::size_t>(output.elements()));
  const std::vector<TensorView> inputs = {{.data = a.data(), .dtype = kSrc, .shape = a_shape},
                                          {.data = b.data(), .dtype = kSrc, .shape = b_shape}};
  RunState state = table.state(pool);
  op.run({.inputs = inputs, .output = {.data = result.data(), .dtype = kDst, .shape = output}},
         state);
  return result;
}

double combine(BinaryKind kind, double a, double b) {
  if (kind == BinaryKind::mul) return a * b;
  return kind == BinaryKind::sub ? a - b : a + b;
}

QpTable make_table() {
  QpTable table(3, 0);
  table.qparams[0] = choose_qparams(-0.7F, 1.3F, 8);
  table.qparams[1] = choose_qparams(-1.1F, 0.4F, 8);
  table.qparams[2] = choose_qparams(-1.5F, 2.0F, 8);
  return table;
}

}  // namespace

TEST_CASE("sums, differences and products of int8, with and without broadcast") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const BinaryKind kind : {BinaryKind::add, BinaryKind::sub, BinaryKind::mul}) {
    for (const Shape& shape : kShapes) {
      for (const bool per_channel : {false, true}) {
        CAPTURE(name_of(kind));
        CAPTURE(to_string(shape));
        CAPTURE(per_channel);
        Shape b_shape = shape;
        if (per_channel) b_shape.height = b_shape.width = 1;
        test::Random random(3);
        QpTable table = make_table();
        std::vector<std::int8_t> a(static_cast<std::size_t>(shape.elements()));
        std::vector<std::int8_t> b(static_cast<std::size_t>(b_shape.elements()));
        for (auto& value : a) value = static_cast<std::int8_t>(random.next() * 127);
        for (auto& value : b) value = static_cast<std::int8_t>(random.next() * 127);
        const BinarySpec spec{.name = "n", .kind = kind, .activation = {.lo = -0.5F}};
        Binary to_int8(
            spec, {.src = DType::qai8, .dst = DType::qai8, .a_row = 0, .b_row = 1, .dst_row = 2},
            selection);
        Binary to_f16(spec, {.src = DType::qai8, .dst = DType::f16, .a_row = 0, .b_row = 1},
                      selection);
        const auto levels = run<std::int8_t, std::int8_t>(to_int8, a, shape, b, b_shape, table, 1);
        CHECK(run<std::int8_t, std::int8_t>(to_int8, a, shape, b, b_shape, table, 3) == levels);
        const auto halves = run<std::int8_t, half>(to_f16, a, shape, b, b_shape, table, 2);
        const std::int64_t image = shape.height * shape.width * shape.stride();
        for (std::int64_t i = 0; i < shape.elements(); ++i) {
          const std::int64_t j = per_channel ? i / image * shape.stride() + i % shape.stride() : i;
          const auto at = static_cast<std::size_t>(i);
          const QParams& x = table.qparams[0];
          const QParams& y = table.qparams[1];
          const double value =
              std::max(combine(kind, (a[at] - x.zero_point) * double{x.scale},
                               (b[static_cast<std::size_t>(j)] - y.zero_point) * double{y.scale}),
                       -0.5);
          CHECK(to_float(halves[at]) == doctest::Approx(value).epsilon(0.001));
          const double level = value / table.qparams[2].scale + table.qparams[2].zero_point;
          CHECK(std::abs(levels[at] - std::clamp(level, -128.0, 127.0)) < 0.53);
        }
      }
    }
  }
}

TEST_CASE("other shapes are refused by name") {
  Binary op({.name = "sum", .activation = {}}, {}, KernelSelection::from_environment());
  const std::vector<Shape> shapes = {{1, 4, 4, 8}, {1, 4, 1, 8}};
  CHECK_THROWS_WITH_AS(op.prepare(shapes, 1),
                       "node 'sum' (add): expected two inputs of one shape, or the second [1, 8, "
                       "1, 1], got [1, 8, 4, 4] and [1, 8, 4, 1]",
                       ShapeError);
}

}  // namespace qpp
