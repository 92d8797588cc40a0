// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "network/session.h"
#include "support.h"

namespace qpp {
namespace {

using nlohmann::json;

const Shape kShape{1, 11, 13, 1};

std::string error_of(const test::ModelParts& parts) {
  try {
    load_model(parts.bytes(), "test");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

json& predictor_of(test::ModelParts& parts) { return parts.graph["quantization"]["predictors"][0]; }

/// A second predictor, of the rows of a and b: bounds are the sums of each one's own features.
test::ModelParts network_of_two_predictors(const json& features, const std::vector<float>& weight,
                                           const std::vector<float>& bias) {
  test::ModelParts parts = test::small_network();
  predictor_of(parts)["rows"] = {0};
  parts.tensors["weight"] = test::f32_tensor({2, 5}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  parts.tensors["bias"] = test::f32_tensor({2}, {0, 0});
  const auto columns = static_cast<std::int64_t>(features.size());
  parts.tensors["w1"] = test::f32_tensor({4, columns}, weight);
  parts.tensors["b1"] = test::f32_tensor({4}, bias);
  parts.graph["quantization"]["predictors"].push_back({{"position", "a"},
                                                       {"rows", {1, 2}},
                                                       {"features", features},
                                                       {"weight", "w1"},
                                                       {"bias", "b1"}});
  // Wide enough for whatever is predicted.
  parts.tensors["calibrated_range"] =
      test::f32_tensor({3, 4}, {0, 0, 0, 9, -9, 0, 0, 9, -9, 0, 0, 9});
  return parts;
}

std::vector<float> image() {
  std::vector<float> data = test::Random(21).list(kShape.pixels(), 0.5F);
  for (float& value : data) value += 0.5F;
  return data;
}

void run(Session& session, const std::vector<float>& data) {
  session.run({{.data = data.data(), .shape = kShape}},
              [](std::size_t, const Shape&) -> float* { return nullptr; });
}

Session open(const test::ModelParts& parts, const std::string& scheme) {
  SessionOptions options;
  options.scheme = scheme;
  return {load_model(parts.bytes(), "test"), options};
}

}  // namespace

TEST_CASE("a file of format 1 has three quantiles, mean and max as features") {
  test::ModelParts parts = test::small_network();
  const Model expected = load_model(parts.bytes(), "test");
  parts.metadata["format_version"] = std::string("1");
  auto& quantization = parts.graph["quantization"];
  quantization["seen"] = quantization["calibrated_range"];
  quantization.erase("calibrated_range");
  predictor_of(parts)["alphas"] = {0.9, 0.99, 0.999};
  predictor_of(parts).erase("features");
  const Model model = load_model(parts.bytes(), "test");
  const std::vector<Feature>& features = model.quantization->predictors[0].features;
  REQUIRE(features.size() == 5);
  for (std::size_t i = 0; i < features.size(); ++i) {
    const Feature& other = expected.quantization->predictors[0].features[i];
    CHECK(features[i].value == other.value);
    CHECK(features[i].spec.kind == other.spec.kind);
    CHECK(features[i].spec.alpha == other.spec.alpha);
  }
  CHECK(model.quantization->bounds[0].regressors[0].weight ==
        expected.quantization->bounds[0].regressors[0].weight);
  predictor_of(parts)["features"] = test::usual_features();
  CHECK(contains(error_of(parts), "'features' is not known"));
}

TEST_CASE("predictors read features of any values that come before what they predict") {
  const json features = {{{"kind", "max"}, {"value", "x"}},
                         {{"kind", "absmax"}},
                         {{"kind", "min"}, {"value", "b"}, {"transform", "log"}}};
  const std::vector<float> weight = {0, 0, 0, 1, 0, 0, 0, -1, 0, 2, 0, 0};
  const std::vector<float> bias = {-1, 0, 0, 0};
  test::ModelParts parts = network_of_two_predictors(features, weight, bias);
  // b is measured before it is quantized, but after a, which is predicted, too.
  CHECK(
      contains(error_of(parts), "rows[0]: the value 'a' comes before the source of a feature 'b'"));
  parts.graph["quantization"]["predictors"][1]["features"].erase(2);
  parts.tensors["w1"] = test::f32_tensor({4, 2}, {0, 0, 1, 0, 0, -1, 2, 0});

  const std::vector<float> data = image();
  Session session = open(parts, "qpp");
  run(session, data);
  const std::vector<Range> bounds = session.bounds().values;
  const std::vector<float> found = session.features().values;
  CHECK(session.feature_columns() == 5);
  REQUIRE(found.size() == 10);
  const float max_of_x = found[4];
  CHECK(found[5] == max_of_x);
  const float absmax_of_a = found[6];
  CHECK(absmax_of_a <= 1);  // after tanh
  CHECK(absmax_of_a > 0);
  for (std::size_t i = 7; i < 10; ++i) CHECK(std::isnan(found[i]));
  CHECK(bounds[0].hi == max_of_x);
  CHECK(bounds[1].lo == -1);
  CHECK(bounds[1].hi == max_of_x);
  CHECK(bounds[2].lo == -absmax_of_a);
  CHECK(bounds[2].hi == 2 * max_of_x);
}

TEST_CASE("a prediction runs once all its features are measured, before the first of its values") {
  const json features = {{{"kind", "max"}, {"value", "x"}}, {{"kind", "mean"}}};
  const std::vector<float> ones(8, 1.0F);
  const Session session = open(network_of_two_predictors(features, ones, {0, 0, 0, 0}), "qpp");
  std::vector<std::string> steps;
  for (const StepInfo& step : session.explain()) steps.push_back(step.node + " " + step.op);
  const auto find = [&](const std::string& step) {
    return std::find(steps.begin(), steps.end(), step) - steps.begin();
  };
  CHECK(find("x measure_features") < find("x predict_qparams"));
  CHECK(find("x predict_qparams") < find("x quantize"));
  CHECK(find("a measure_features") < find("a predict_qparams"));
  CHECK(find("a predict_qparams") < find("a quantize"));
  CHECK(find("a quantize") < static_cast<std::ptrdiff_t>(steps.size()));
  CHECK(std::count(steps.begin(), steps.end(), "x measure_features") == 1);
}

TEST_CASE("logarithms of features and targets") {
  const json features = {{{"kind", "max"}, {"value", "x"}, {"transform", "log"}}};
  test::ModelParts parts = network_of_two_predictors(features, {1, 1, 0, 1}, {0, 1, -30, 2});
  parts.graph["quantization"]["predictors"][1]["target_transform"] = "log";
  Session session = open(parts, "qpp");
  run(session, image());
  const std::vector<Range> bounds = session.bounds().values;
  const float max_of_x = session.features().values[4];
  CHECK(bounds[1].lo == doctest::Approx(-max_of_x).epsilon(1e-6));
  CHECK(bounds[1].hi == doctest::Approx(2 * max_of_x).epsilon(1e-6));
  CHECK(bounds[2].lo == 0);
  CHECK(bounds[2].hi == doctest::Approx(4 * max_of_x).epsilon(1e-6));
}

TEST_CASE("calibration measures the features that the file lists") {
  const json features = {{{"kind", "std"}}, {{"kind", "min"}, {"value", "x"}}};
  test::ModelParts parts = network_of_two_predictors(features, std::vector<float>(8), {0, 0, 0, 0});
  for (json& predictor : parts.graph["quantization"]["predictors"]) {
    predictor.erase("weight");
    predictor.erase("bias");
  }
  for (const char* unused : {"static", "default_static", "calibrated_range"})
    parts.graph["quantization"].erase(unused);
  Session session = open(parts, "calibration");
  run(session, image());
  const std::vector<float> found = session.features().values;
  CHECK(found[5] > 0.01F);
  CHECK(found[5] < 1);
  const std::vector<float> data = image();
  CHECK(found[6] == to_float(to_half(*std::min_element(data.begin(), data.end()))));
  CHECK(std::isnan(found[7]));
}

TEST_CASE("wrong features are refused") {
  struct Case {
    json features;
    const char* message;
  };
  const Case cases[] = {
      {json::array(), "features: expected 1 to 64 features, got 0"},
      {json::array({{{"kind", "median"}}}),
       "kind: expected one of quantile, mean, std, min, max, absmax, got \"median\""},
      {json::array({{{"kind", "quantile"}}}), "expected an alpha for the kind \"quantile\""},
      {json::array({{{"kind", "mean"}, {"alpha", 0.9}}}), "and for no other"},
      {json::array({{{"kind", "quantile"}, {"alpha", 0.4}}}), "expected an alpha above 0.5"},
      {json::array({{{"kind", "mean"}, {"value", "z"}}}), "the value 'z' is not defined"},
      {json::array({{{"kind", "mean"}, {"value", "a"}}}),
       "the value 'x' comes before the source of a feature 'a'"},
      {json::array({{{"kind", "mean"}, {"transform", "sqrt"}}}),
       "transform: expected one of identity, log"},
      {json::array({{{"kind", "mean"}, {"gain", 2}}}), "'gain' is not known"},
      {json::array({{{"kind", "mean"}}}), "has the wrong shape for 6 rows"},
  };
  for (const Case& wrong : cases) {
    test::ModelParts parts = test::small_network();
    predictor_of(parts)["features"] = wrong.features;
    CAPTURE(wrong.message);
    const std::string error = error_of(parts);
    CAPTURE(error);
    CHECK(contains(error, wrong.message));
  }
  test::ModelParts parts = test::small_network();
  predictor_of(parts)["target_transform"] = "sqrt";
  CHECK(contains(error_of(parts), "target_transform: expected one of identity, log"));
  parts = test::small_network();
  parts.graph["quantization"].erase("calibrated_range");
  CHECK(contains(error_of(parts), "needs the calibrated range"));
}

TEST_CASE("static bounds have an order") {
  test::ModelParts parts = test::small_network();
  parts.tensors["mean"] = test::f32_tensor({3, 2}, {0, 1, 1, -1, 0, 1});
  CHECK(contains(error_of(parts), "static.mean: expected lo, hi in this order for 'a'"));
}

}  // namespace qpp
