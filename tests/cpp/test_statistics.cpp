// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "network/qp_table.h"
#include "ops/quantize.h"
#include "ops/statistics.h"
#include "support.h"

namespace qpp {
namespace {

/// A tensor whose padding channels hold values that would spoil every statistic.
struct Sample {
  Shape shape;
  std::vector<half> data;
  std::vector<float> sorted;

  explicit Sample(const Shape& dimensions, std::uint64_t seed) : shape(dimensions) {
    test::Random random(seed);
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

void run(Op& op, const TensorView& input, QpTable& table) {
  ThreadPool pool(1);
  op.prepare(std::span(&input.shape, 1), 1);
  AlignedVector<std::byte> scratch(op.scratch_bytes());
  RunState state = table.state(pool);
  op.run({.inputs = std::span(&input, 1), .output = {}, .scratch = scratch.data()}, state);
}

}  // namespace

TEST_CASE("the rank of a quantile is ceil(alpha * n) - 1, inside the tensor") {
  CHECK(quantile_rank(0.5, 10) == 4);
  CHECK(quantile_rank(0.9, 10) == 8);
  CHECK(quantile_rank(0.91, 10) == 9);
  CHECK(quantile_rank(1, 10) == 9);
  CHECK(quantile_rank(0.0001, 10) == 0);
}

TEST_CASE("choose_qparams takes the quantiles from both ends") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Shape& shape :
       {Shape{1, 16, 16, 8}, Shape{2, 7, 5, 3}, Shape{1, 1, 1, 1}, Shape{1, 40, 50, 20}}) {
    Sample sample(shape, 5);
    const auto count = static_cast<std::int64_t>(sample.sorted.size());
    for (const double alpha : {1.0, 0.9997, 0.99, 0.9}) {
      CAPTURE(to_string(shape));
      CAPTURE(alpha);
      QpTable table(1, 0);
      ChooseQParams op({.value = "v", .targets = {{.row = 0, .alpha = alpha}}}, selection);
      run(op, sample.view(), table);
      const std::int64_t rank = quantile_rank(alpha, count);
      CHECK(table.qparams[0].hi == std::max(sample.sorted[static_cast<std::size_t>(rank)], 0.0F));
      CHECK(table.qparams[0].lo ==
            std::min(sample.sorted[static_cast<std::size_t>(count - 1 - rank)], 0.0F));
    }
  }
}

TEST_CASE("a quantile that would cut everything on its side gives way to the extreme") {
  struct Expected {
    std::vector<float> values;  // scattered over
    float rest = 0;             // what the others are
    Range bounds;
    bool widened;
  };
  const Expected cases[] = {
      // A few lit pixels on black; of either sign; none.
      {{0.5F, 2}, 0, {.lo = 0, .hi = 2}, true},
      {{-0.5F, -2}, 0, {.lo = -2, .hi = 0}, true},
      {{-3, 0.5F}, 0, {.lo = -3, .hi = 0.5F}, true},
      {{}, 0, {.lo = 0, .hi = 0}, false},
      // One side is held by others: no further than these.
      {{0.75F}, -1, {.lo = -1, .hi = 0.75F}, true},
      {{400}, -1, {.lo = -1, .hi = 1}, true},
      {{-0.75F}, 1, {.lo = -0.75F, .hi = 1}, true},
      {{-400}, 1, {.lo = -1, .hi = 1}, true},
      // The quantile cuts some of a side, which is what it is for.
      {{400}, 1, {.lo = 0, .hi = 1}, false},
  };
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Expected& expected : cases) {
    Sample sample({1, 20, 30, 5}, 3);
    for (std::size_t i = 0; i < sample.data.size(); ++i) {
      if (i % 8 < 5) sample.data[i] = to_half(expected.rest);
    }
    for (std::size_t i = 0; i < expected.values.size(); ++i)
      sample.data[800 * i + 4] = to_half(expected.values[i]);
    QpTable table(2, 0);
    ChooseQParams op(
        {.value = "v", .targets = {{.row = 0, .alpha = 0.999}, {.row = 1, .alpha = 0.99}}},
        selection);
    run(op, sample.view(), table);
    for (std::size_t row = 0; row < 2; ++row) {
      CHECK(table.qparams[row].lo == expected.bounds.lo);
      CHECK(table.qparams[row].hi == expected.bounds.hi);
      CHECK(table.widened_bounds[row] == (expected.widened ? 1 : 0));
    }
  }
}

TEST_CASE("choose_qparams measures more alphas than a kernel takes ranks for") {
  const KernelSelection selection = KernelSelection::from_environment();
  Sample sample({1, 20, 30, 6}, 4);
  std::vector<ChooseQParams::Target> targets;
  for (const double alpha : {1.0, 0.9997, 0.99, 0.97, 0.95, 0.9})
    targets.push_back({.row = static_cast<int>(targets.size()), .alpha = alpha});
  QpTable together(targets.size(), 0);
  QpTable alone(targets.size(), 0);
  ChooseQParams op({.value = "v", .targets = targets}, selection);
  run(op, sample.view(), together);
  for (const ChooseQParams::Target& target : targets) {
    CAPTURE(target.alpha);
    ChooseQParams single({.value = "v", .targets = {target}}, selection);
    run(single, sample.view(), alone);
    const auto row = static_cast<std::size_t>(target.row);
    CHECK(together.qparams[row].lo == alone.qparams[row].lo);
    CHECK(together.qparams[row].hi == alone.qparams[row].hi);
  }
}

TEST_CASE("features are three quantiles, mean and max of the real channels") {
  const KernelSelection selection = KernelSelection::from_environment();
  Sample sample({1, 30, 31, 5}, 9);
  QpTable table(1, 1);
  MeasureFeatures op({.value = "v", .position = 0, .alphas = {0.9, 0.99, 0.999}}, selection);
  run(op, sample.view(), table);
  const auto count = static_cast<std::int64_t>(sample.sorted.size());
  CHECK(table.features[0] == sample.sorted[static_cast<std::size_t>(quantile_rank(0.9, count))]);
  CHECK(table.features[1] == sample.sorted[static_cast<std::size_t>(quantile_rank(0.99, count))]);
  CHECK(table.features[2] == sample.sorted[static_cast<std::size_t>(quantile_rank(0.999, count))]);
  double sum = 0;
  for (const float value : sample.sorted) sum += static_cast<double>(value);
  CHECK(table.features[3] == doctest::Approx(sum / static_cast<double>(count)).epsilon(1e-5));
  CHECK(table.features[4] == sample.sorted.back());
}

TEST_CASE("NaN and infinity are reported with the value's name") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Sample sample({1, 9, 9, 8}, 2);
    sample.data[100] = to_half(bad);
    QpTable table(1, 1);
    ChooseQParams choose({.value = "layer3", .targets = {{.row = 0, .alpha = 0.99}}}, selection);
    CHECK_THROWS_AS(run(choose, sample.view(), table), NonFiniteError);
    MeasureFeatures features({.value = "layer3", .position = 0, .alphas = {0.9, 0.99, 0.999}},
                             selection);
    CHECK_THROWS_WITH_AS(run(features, sample.view(), table), doctest::Contains("layer3"),
                         NonFiniteError);
  }
}

TEST_CASE(
    "predictions are linear in the features, cut to the calibrated range, and cuts are counted") {
  QpTable table(2, 1);
  table.features = {1, 2, 3, 4, 5};
  PredictQParams::Row row;
  row.row = 1;
  row.weight_lo = {-1, 0, 0, 0, 0};
  row.weight_hi = {0, 0, 0, 0, 2};
  row.bias_hi = 0.5F;
  row.seen_lo = {.lo = -2, .hi = 0};
  row.seen_hi = {.lo = 0, .hi = 20};
  ThreadPool pool(1);
  RunState state = table.state(pool);
  PredictQParams(0, {row}, 8).run({}, state);
  CHECK(table.qparams[1].lo == -1);
  CHECK(table.qparams[1].hi == 10.5F);
  CHECK(table.clamped_predictions[1] == 0);
  row.seen_hi.hi = 8;
  PredictQParams(0, {row}, 8).run({}, state);
  CHECK(table.qparams[1].hi == 8);
  CHECK(table.clamped_predictions[1] == 1);
}

TEST_CASE("a prediction of zero width is the widest of calibration") {
  QpTable table(1, 1);
  ThreadPool pool(1);
  RunState state = table.state(pool);
  PredictQParams::Row row;
  row.row = 0;
  row.bias_hi = -1;
  row.seen_lo = {.lo = -2, .hi = 0};
  row.seen_hi = {.lo = 0, .hi = 20};
  PredictQParams(0, {row}, 8).run({}, state);
  CHECK(table.qparams[0].lo == -2);
  CHECK(table.qparams[0].hi == 20);
  CHECK(table.widened_bounds[0] == 1);
  row.bias_lo = -0.5F;  // no longer of zero width
  PredictQParams(0, {row}, 8).run({}, state);
  CHECK(table.qparams[0].lo == -0.5F);
  CHECK(table.qparams[0].hi == 0);
  CHECK(table.widened_bounds[0] == 1);
  row.bias_lo = 0;
  row.seen_lo = row.seen_hi = {.lo = 0, .hi = 0};  // zero in calibration, too
  PredictQParams(0, {row}, 8).run({}, state);
  CHECK(table.qparams[0].hi == 0);
  CHECK(table.widened_bounds[0] == 1);
}

TEST_CASE("quantize and dequantize are each other's inverse to half a step") {
  const KernelSelection selection = KernelSelection::from_environment();
  Sample sample({1, 6, 7, 16}, 4);
  ThreadPool pool(2);
  QpTable table(1, 0);
  for (const int bits : {2, 4, 8}) {
    const QParams row = table.qparams[0] = choose_qparams(-1, 2, bits);
    std::vector<std::int8_t> narrow(sample.data.size());
    std::vector<half> back(sample.data.size());
    RunState state = table.state(pool);
    const TensorView wide = sample.view();
    const TensorView middle{.data = narrow.data(), .dtype = DType::qai8, .shape = sample.shape};
    Quantize(0, selection).run({.inputs = std::span(&wide, 1), .output = middle}, state);
    Dequantize(0, selection)
        .run({.inputs = std::span(&middle, 1),
              .output = {.data = back.data(), .dtype = DType::f16, .shape = sample.shape}},
             state);
    for (std::size_t i = 0; i < back.size(); ++i) {
      const float expected = std::clamp(to_float(sample.data[i]),
                                        static_cast<float>(row.qmin - row.zero_point) * row.scale,
                                        static_cast<float>(row.qmax - row.zero_point) * row.scale);
      CHECK(std::abs(to_float(back[i]) - expected) <= 0.502F * row.scale);
      CHECK(narrow[i] >= row.qmin);
      CHECK(narrow[i] <= row.qmax);
    }
  }
}

}  // namespace qpp
