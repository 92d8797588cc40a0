// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "base/log2.h"
#include "ops/features.h"
#include "ops/predict_qparams.h"
#include "sample.h"

namespace qpp {
namespace {

MeasureFeatures make(const std::vector<FeatureSpec>& features) {
  MeasureFeatures::Spec spec{.value = "layer3", .targets = {}};
  for (const FeatureSpec& feature : features)
    spec.targets.push_back({.feature = feature, .slot = spec.targets.size()});
  return {spec, KernelSelection::from_environment()};
}

std::vector<float> measure(const std::vector<FeatureSpec>& features, test::Sample& sample) {
  QpTable table(1, features.size());
  MeasureFeatures op = make(features);
  test::run(op, sample.view(), table);
  return table.features;
}

float quantile(const test::Sample& sample, double alpha) {
  const auto count = static_cast<std::int64_t>(sample.sorted.size());
  return sample.sorted[static_cast<std::size_t>(quantile_rank(alpha, count))];
}

FeatureSpec quantile_feature(double alpha) {
  return {.kind = FeatureKind::quantile, .alpha = alpha};
}

/// One feature, the first of the table, and one target.
PredictQParams::Spec prediction(const std::vector<float>& weight, const std::vector<float>& bias,
                                const CalibratedRange& range) {
  return {.targets = {{.row = 1, .calibrated_range = range}}, .weight = weight, .bias = bias};
}

constexpr CalibratedRange kWide{.lo = {.lo = -100, .hi = 0}, .hi = {.lo = 0, .hi = 100}};

}  // namespace

TEST_CASE("features are statistics of the real channels") {
  test::Sample sample({1, 30, 31, 5}, 9);
  const std::vector<float> found = measure({quantile_feature(0.9),
                                            quantile_feature(0.99),
                                            quantile_feature(0.999),
                                            {.kind = FeatureKind::mean},
                                            {.kind = FeatureKind::max},
                                            {.kind = FeatureKind::min},
                                            {.kind = FeatureKind::absmax},
                                            {.kind = FeatureKind::std}},
                                           sample);
  CHECK(found[0] == quantile(sample, 0.9));
  CHECK(found[1] == quantile(sample, 0.99));
  CHECK(found[2] == quantile(sample, 0.999));
  double sum = 0;
  for (const float value : sample.sorted) sum += static_cast<double>(value);
  const double mean = sum / static_cast<double>(sample.sorted.size());
  CHECK(found[3] == doctest::Approx(mean).epsilon(1e-5));
  CHECK(found[4] == sample.sorted.back());
  CHECK(found[5] == sample.sorted.front());
  CHECK(found[6] == std::max(-sample.sorted.front(), sample.sorted.back()));
  double squares = 0;
  for (const float value : sample.sorted) squares += std::pow(static_cast<double>(value) - mean, 2);
  CHECK(found[7] ==
        doctest::Approx(std::sqrt(squares / static_cast<double>(sample.sorted.size()))));
}

TEST_CASE("each feature alone is what it is among others") {
  test::Sample sample({2, 9, 7, 12}, 3);
  std::vector<FeatureSpec> features = {{.kind = FeatureKind::mean},
                                       {.kind = FeatureKind::std},
                                       {.kind = FeatureKind::min},
                                       {.kind = FeatureKind::max},
                                       {.kind = FeatureKind::absmax}};
  for (int i = 0; i < 12; ++i) features.push_back(quantile_feature(0.6 + 0.03 * i));  // two scans
  for (const Transform transform : {Transform::identity, Transform::log}) {
    for (FeatureSpec& feature : features) feature.transform = transform;
    const std::vector<float> together = measure(features, sample);
    for (std::size_t i = 0; i < features.size(); ++i) {
      CAPTURE(i);
      CHECK(measure({features[i]}, sample)[0] == together[i]);
    }
  }
}

TEST_CASE("the transform log takes log2 of a magnitude of at least 2^-24") {
  test::Sample sample({1, 4, 4, 8}, 3);
  for (half& value : sample.data) value = to_half(-0.25F);
  const auto log_of = [](FeatureKind kind) {
    return FeatureSpec{.kind = kind, .transform = Transform::log};
  };
  const std::vector<float> found = measure({log_of(FeatureKind::min), log_of(FeatureKind::max),
                                            log_of(FeatureKind::absmax), log_of(FeatureKind::std)},
                                           sample);
  CHECK(found == std::vector<float>{-2, -24, -2, -24});
}

TEST_CASE("NaN and infinity are reported with the name of the value") {
  const std::vector<std::vector<FeatureSpec>> lists = {
      {quantile_feature(0.9), {.kind = FeatureKind::mean}},
      {quantile_feature(0.9)},
      {{.kind = FeatureKind::mean}},
      {{.kind = FeatureKind::std}},
      {{.kind = FeatureKind::min}}};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    test::Sample sample({1, 9, 9, 8}, 2);
    sample.data[100] = to_half(bad);
    for (const auto& features : lists) {
      CHECK_THROWS_WITH_AS(measure(features, sample), doctest::Contains("layer3"), NonFiniteError);
    }
  }
}

TEST_CASE("logarithms and powers are exact to float precision") {
  for (int i = 0; i < 11000; ++i) {  // from 2^-24 to 2^17
    const float x = 0x1p-24F * std::pow(1.0026F, static_cast<float>(i));
    CHECK(std::abs(log2_shared(x) - std::log2(static_cast<double>(x))) <=
          0x1p-23 * std::max(1.0, std::abs(std::log2(static_cast<double>(x)))) / 2 + 1e-12);
    const float y = log2_shared(x);
    CHECK(exp2_shared(y) == static_cast<float>(std::exp2(static_cast<double>(y))));
  }
  for (int exponent = -24; exponent <= 16; ++exponent) {
    const float power = std::ldexp(1.0F, exponent);
    CHECK(log2_shared(power) == static_cast<float>(exponent));
    CHECK(exp2_shared(static_cast<float>(exponent)) == power);
  }
  CHECK(exp2_shared(1e9F) == INFINITY);
  CHECK(exp2_shared(-1e9F) == 0);
}

TEST_CASE("predictions are linear in the features, clamped to the calibrated range, and counted") {
  QpTable table(2, 5);
  table.features = {1, 2, 3, 4, 5};
  ThreadPool pool(1);
  RunState state = table.state(pool);
  CalibratedRange range{.lo = {.lo = -2, .hi = 0}, .hi = {.lo = 0, .hi = 20}};
  const std::vector<float> weight = {-1, 0, 0, 0, 0, 0, 0, 0, 0, 2};
  PredictQParams(prediction(weight, {0, 0.5F}, range)).run({}, state);
  CHECK(table.qparams[1].lo == -1);
  CHECK(table.qparams[1].hi == 10.5F);
  CHECK(table.clamped_predictions[1] == 0);
  range.hi.hi = 8;
  PredictQParams(prediction(weight, {0, 0.5F}, range)).run({}, state);
  CHECK(table.qparams[1].hi == 8);
  CHECK(table.clamped_predictions[1] == 1);
}

TEST_CASE("a predictor reads its own features and any number of them") {
  QpTable table(2, 5);
  table.features = {1, 2, 3, 4, 5};
  ThreadPool pool(1);
  RunState state = table.state(pool);
  PredictQParams::Spec spec = prediction({-1, 0, 0, 10}, {0, 0}, kWide);
  spec.first_slot = 2;
  PredictQParams(spec).run({}, state);
  CHECK(table.qparams[1].lo == -3);
  CHECK(table.qparams[1].hi == 40);
}

TEST_CASE("logarithms of targets become magnitudes") {
  QpTable table(2, 1);
  table.features = {3};
  ThreadPool pool(1);
  RunState state = table.state(pool);
  PredictQParams::Spec spec = prediction({1, 2}, {-4, -1}, kWide);
  spec.transform = Transform::log;
  PredictQParams(spec).run({}, state);
  CHECK(table.qparams[1].lo == -0.5F);
  CHECK(table.qparams[1].hi == 32);
  spec.bias = {-27, 0};  // lo: 2^-24, which is 0
  PredictQParams(spec).run({}, state);
  CHECK(table.qparams[1].lo == 0);
  CHECK(table.qparams[1].hi == 64);
}

TEST_CASE("a prediction of zero width is the widest of calibration") {
  QpTable table(2, 1);
  ThreadPool pool(1);
  RunState state = table.state(pool);
  const CalibratedRange range{.lo = {.lo = -2, .hi = 0}, .hi = {.lo = 0, .hi = 20}};
  PredictQParams(prediction({0, 0}, {0, -1}, range)).run({}, state);
  CHECK(table.qparams[1].lo == -2);
  CHECK(table.qparams[1].hi == 20);
  CHECK(table.widened_bounds[1] == 1);
  PredictQParams(prediction({0, 0}, {-0.5F, -1}, range)).run({}, state);  // not of zero width
  CHECK(table.qparams[1].lo == -0.5F);
  CHECK(table.qparams[1].hi == 0);
  CHECK(table.widened_bounds[1] == 1);
  const CalibratedRange zero{.lo = {.lo = 0, .hi = 0}, .hi = {.lo = 0, .hi = 0}};
  PredictQParams(prediction({0, 0}, {0, -1}, zero)).run({}, state);
  CHECK(table.qparams[1].hi == 0);
  CHECK(table.widened_bounds[1] == 1);
}

}  // namespace qpp
