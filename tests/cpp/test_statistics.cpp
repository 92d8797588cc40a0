// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/quantize.h"
#include "ops/statistics.h"
#include "sample.h"

namespace qpp {

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
    test::Sample sample(shape, 5);
    const auto count = static_cast<std::int64_t>(sample.sorted.size());
    for (const double alpha : {1.0, 0.9997, 0.99, 0.9}) {
      CAPTURE(to_string(shape));
      CAPTURE(alpha);
      QpTable table(1, 0);
      ChooseQParams op({.value = "v", .targets = {{.row = 0, .alpha = alpha}}}, selection);
      test::run(op, sample.view(), table);
      const std::int64_t rank = quantile_rank(alpha, count);
      CHECK(table.qparams[0].hi == std::max(sample.sorted[static_cast<std::size_t>(rank)], 0.0F));
      CHECK(table.qparams[0].lo ==
            std::min(sample.sorted[static_cast<std::size_t>(count - 1 - rank)], 0.0F));
    }
  }
}

TEST_CASE("a quantile that would clip everything on its side is replaced by the extreme") {
  struct Expected {
    std::vector<float> values;  // scattered over
    float rest = 0;             // the value of the others
    Range bounds;
    bool extended;
  };
  const Expected cases[] = {
      // A few bright pixels on black; of either sign; none.
      {{0.5F, 2}, 0, {.lo = 0, .hi = 2}, true},
      {{-0.5F, -2}, 0, {.lo = -2, .hi = 0}, true},
      {{-3, 0.5F}, 0, {.lo = -3, .hi = 0.5F}, true},
      {{}, 0, {.lo = 0, .hi = 0}, false},
      // One side is held by others: no further than these.
      {{0.75F}, -1, {.lo = -1, .hi = 0.75F}, true},
      {{400}, -1, {.lo = -1, .hi = 1}, true},
      {{-0.75F}, 1, {.lo = -0.75F, .hi = 1}, true},
      {{-400}, 1, {.lo = -1, .hi = 1}, true},
      // The quantile clips some elements of a side, as intended.
      {{400}, 1, {.lo = 0, .hi = 1}, false},
  };
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Expected& expected : cases) {
    test::Sample sample({1, 20, 30, 5}, 3);
    for (std::size_t i = 0; i < sample.data.size(); ++i) {
      if (i % 8 < 5) sample.data[i] = to_half(expected.rest);
    }
    for (std::size_t i = 0; i < expected.values.size(); ++i)
      sample.data[800 * i + 4] = to_half(expected.values[i]);
    QpTable table(2, 0);
    ChooseQParams op(
        {.value = "v", .targets = {{.row = 0, .alpha = 0.999}, {.row = 1, .alpha = 0.99}}},
        selection);
    test::run(op, sample.view(), table);
    for (std::size_t row = 0; row < 2; ++row) {
      CHECK(table.qparams[row].lo == expected.bounds.lo);
      CHECK(table.qparams[row].hi == expected.bounds.hi);
      CHECK(table.widened_bounds[row] == (expected.extended ? 1 : 0));
    }
  }
}

TEST_CASE("choose_qparams measures more alphas than a kernel takes ranks for") {
  const KernelSelection selection = KernelSelection::from_environment();
  test::Sample sample({1, 20, 30, 6}, 4);
  std::vector<ChooseQParams::Target> targets;
  for (const double alpha : {1.0, 0.9997, 0.99, 0.97, 0.95, 0.9})
    targets.push_back({.row = static_cast<int>(targets.size()), .alpha = alpha});
  QpTable together(targets.size(), 0);
  QpTable alone(targets.size(), 0);
  ChooseQParams op({.value = "v", .targets = targets}, selection);
  test::run(op, sample.view(), together);
  for (const ChooseQParams::Target& target : targets) {
    CAPTURE(target.alpha);
    ChooseQParams single({.value = "v", .targets = {target}}, selection);
    test::run(single, sample.view(), alone);
    const auto row = static_cast<std::size_t>(target.row);
    CHECK(together.qparams[row].lo == alone.qparams[row].lo);
    CHECK(together.qparams[row].hi == alone.qparams[row].hi);
  }
}

TEST_CASE("NaN and infinity are reported with the value's name") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    test::Sample sample({1, 9, 9, 8}, 2);
    sample.data[100] = to_half(bad);
    QpTable table(1, 0);
    ChooseQParams choose({.value = "layer3", .targets = {{.row = 0, .alpha = 0.99}}}, selection);
    CHECK_THROWS_WITH_AS(test::run(choose, sample.view(), table), doctest::Contains("layer3"),
                         NonFiniteError);
  }
}

TEST_CASE("quantize and dequantize are each other's inverse to half a step") {
  const KernelSelection selection = KernelSelection::from_environment();
  test::Sample sample({1, 6, 7, 16}, 4);
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
