// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <thread>

#include "network/session.h"
#include "support.h"

namespace qpp {
namespace {

Model model() { return load_model(test::small_network().bytes(), "test"); }

/// With bounds and predictors of the densities 0.01 and 0.1, `factors` times as wide as those
/// without density.
Model model_of_densities(const std::array<float, 2>& factors) {
  test::ModelParts parts = test::small_network();
  parts.graph["quantization"]["densities"] = {0.01, 0.1};
  for (const char* name : {"mean", "range", "calibrated_range", "weight", "bias"}) {
    Tensor& tensor = parts.tensors[name];
    std::vector<float> values;
    for (const float factor : {1.0F, factors[0], factors[1]}) {
      for (std::int64_t i = 0; i < tensor.elements(); ++i) values.push_back(factor * tensor.at(i));
    }
    std::vector<std::int64_t> shape = tensor.shape;
    shape[0] *= 3;
    tensor = test::f32_tensor(shape, values);
  }
  return load_model(parts.bytes(), "test");
}

std::vector<float> run(Session& session, const std::vector<float>& data, const Shape& shape) {
  std::vector<float> result;
  session.run({{.data = data.data(), .shape = shape}}, [&](std::size_t, const Shape& output) {
    result.resize(static_cast<std::size_t>(output.pixels() * output.channels));
    return result.data();
  });
  return result;
}

SessionOptions scheme(const std::string& name, int threads = 1) {
  SessionOptions options;
  options.scheme = name;
  options.threads = threads;
  return options;
}

std::vector<float> image(const Shape& shape) {
  std::vector<float> data = test::Random(21).list(shape.pixels() * shape.channels, 0.5F);
  for (float& value : data) value += 0.5F;
  return data;
}

double signal_to_noise(const std::vector<float>& expected, const std::vector<float>& got) {
  double signal = 0;
  double noise = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    signal += static_cast<double>(expected[i]) * expected[i];
    noise += std::pow(static_cast<double>(expected[i]) - got[i], 2);
  }
  return 10 * std::log10(signal / noise);
}

const Shape kShape{2, 11, 13, 1};

}  // namespace

TEST_CASE("all schemes agree with fp16 to the precision of 8 bits") {
  const auto data = image(kShape);
  Session reference(model(), scheme("fp16"));
  const auto expected = run(reference, data, kShape);
  CHECK(expected.size() == 2 * 22 * 26);
  for (const char* name : {"static", "dynamic", "qpp"}) {
    CAPTURE(name);
    Session session(model(), scheme(name));
    CHECK(signal_to_noise(expected, run(session, data, kShape)) > 25);
  }
}

TEST_CASE("fewer bits are noisier") {
  const auto data = image(kShape);
  Session reference(model(), scheme("fp16"));
  const auto expected = run(reference, data, kShape);
  double last = 1000;
  for (const int bits : {8, 6, 4, 2}) {
    SessionOptions options = scheme("dynamic");
    options.activation_bits = bits;
    Session session(model(), options);
    const double ratio = signal_to_noise(expected, run(session, data, kShape));
    CHECK(ratio < last);
    last = ratio;
  }
}

TEST_CASE("results do not depend on the thread count") {
  const auto data = image(kShape);
  for (const char* name : {"fp16", "static", "dynamic", "qpp"}) {
    Session one(model(), scheme(name));
    Session four(model(), scheme(name, 4));
    CHECK(run(one, data, kShape) == run(four, data, kShape));
  }
}

TEST_CASE("a run that is observed returns what others do") {
  const auto data = image(kShape);
  Session session(model(), scheme("fp16"));
  const auto expected = run(session, data, kShape);
  std::vector<float> result(expected.size());
  int steps = 0;
  session.run({{.data = data.data(), .shape = kShape}},
              [&](std::size_t, const Shape&) { return result.data(); },
              {.observe = [&](const StepOutput&) { ++steps; }});
  CHECK(steps == 2 * 4);  // of two samples
  CHECK(result == expected);
}

TEST_CASE("QPP and dynamic write rows per sample, static does not") {
  const auto bright = image(kShape);
  auto dark = bright;
  for (float& value : dark) value *= 0.6F;
  Session dynamic(model(), scheme("dynamic"));
  Session predicted(model(), scheme("qpp"));
  Session fixed(model(), scheme("static"));
  for (Session* session : {&dynamic, &predicted}) {
    run(*session, bright, kShape);
    const float before = session->bounds().values[0].hi;
    run(*session, dark, kShape);
    CHECK(session->bounds().values[0].hi == doctest::Approx(0.6F * before).epsilon(0.01));
  }
  run(fixed, dark, kShape);
  CHECK(fixed.bounds().values[0].hi == 1.0F);
}

TEST_CASE("samples of a batch give what they give alone, in every scheme and on all threads") {
  const Shape one{1, 11, 13, 1};
  const Shape all{4, 11, 13, 1};
  std::vector<float> batch;
  for (const float gain : {1.0F, 0.05F, 0.5F, 0.7F}) {
    for (const float value : image(one)) batch.push_back(gain * value);
  }
  const std::size_t size = batch.size() / 4;
  for (const char* name : {"fp16", "static", "dynamic", "qpp"}) {
    CAPTURE(name);
    for (const int bits : {8, 4}) {
      SessionOptions options = scheme(name);
      options.activation_bits = bits;
      Session single(model(), options);
      std::vector<float> expected;
      std::vector<float> bounds;
      std::vector<float> features;
      for (std::size_t sample = 0; sample < 4; ++sample) {
        const std::vector<float> data(batch.data() + sample * size,
                                      batch.data() + (sample + 1) * size);
        for (const float value : run(single, data, one)) expected.push_back(value);
        for (const Range& range : single.bounds().values) bounds.push_back(range.hi);
        for (const float feature : single.features().values) features.push_back(feature);
      }
      for (const int threads : {1, 2, 3}) {
        options.threads = threads;
        Session session(model(), options);
        CHECK(run(session, batch, all) == expected);
        CHECK(session.bounds().samples == 4);
        std::vector<float> got;
        for (const Range& range : session.bounds().values) got.push_back(range.hi);
        CHECK(got == bounds);
        CHECK(session.features().values == features);
        CHECK(session.stats().clamped_predictions == single.stats().clamped_predictions);
      }
    }
  }
}

TEST_CASE("a batch needs no other plan than a sample") {
  Session session(model(), scheme("qpp"));
  session.prepare({{1, 11, 13, 1}});
  const std::size_t arena = session.memory().arena;
  const std::vector<StepInfo> one = session.explain();
  CHECK(session.prepare({{4, 11, 13, 1}})[0] == Shape{4, 22, 26, 1});
  CHECK(session.memory().arena == arena);
  const std::vector<StepInfo> four = session.explain();
  for (std::size_t i = 0; i < one.size(); ++i) {
    CHECK(four[i].macs == 4 * one[i].macs);
    CHECK(four[i].bytes == 4 * one[i].bytes);
    CHECK(four[i].shape.batch == 4 * one[i].shape.batch);
  }
  std::vector<float> result(4 * 22 * 26);
  const auto data = image({4, 11, 13, 1});
  std::vector<Session::Input> inputs = {{.data = data.data(), .shape = {4, 11, 13, 1}}};
  const Session::OutputAllocator place = [&result](std::size_t, const Shape&) {
    return result.data();
  };
  for (const std::int64_t batch : {4, 1, 3, 4}) {  // prepared for the largest
    inputs[0].shape.batch = batch;
    const std::int64_t before = test::allocations();
    session.run(inputs, place);
    CHECK(test::allocations() - before == 0);
  }
  CHECK_THROWS_WITH_AS(session.prepare({{std::int64_t{1} << 40, 11, 13, 1}}),
                       doctest::Contains("is too large"), ShapeError);
}

TEST_CASE("times are those of every step of every sample") {
  Session session(model(), scheme("qpp"));
  const Shape shape{3, 11, 13, 1};
  const auto data = image(shape);
  std::vector<StepTime> times;
  session.run({{.data = data.data(), .shape = shape}},
              [](std::size_t, const Shape&) -> float* { return nullptr; }, {.times = &times});
  CHECK(times.size() == 3 * session.explain().size());
  for (std::size_t i = 0; i < times.size(); ++i) {
    CHECK(times[i].begin <= times[i].end);
    if (i > 0) CHECK(times[i - 1].end <= times[i].begin);
  }
}

TEST_CASE("clamped predictions are counted by value") {
  Session session(model(), scheme("qpp"));
  auto dark = image(kShape);
  for (float& value : dark) value *= 0.1F;  // the calibrated maximum of x was 0.5 to 1
  run(session, dark, kShape);
  run(session, dark, kShape);
  const SessionStats stats = session.stats();
  CHECK(stats.runs == 2);
  CHECK(stats.samples == 4);
  CHECK(stats.predictions == 12);
  CHECK(stats.clamped_predictions[0] == std::pair<std::string, std::int64_t>("x", 4));
  CHECK(stats.clamped_predictions[1].second == 0);
}

TEST_CASE("run() does not allocate, and other shapes are planned anew") {
  const auto data = image(kShape);
  for (const char* name : {"fp16", "static", "dynamic", "qpp"}) {
    CAPTURE(name);
    Session session(model(), scheme(name));
    std::vector<float> result(2 * 22 * 26);
    const std::vector<Session::Input> inputs = {{.data = data.data(), .shape = kShape}};
    const Session::OutputAllocator place = [&result](std::size_t, const Shape&) {
      return result.data();
    };
    session.run(inputs, place);
    const std::int64_t before = test::allocations();
    session.run(inputs, place);
    CHECK(test::allocations() - before == 0);

    const Shape other{1, 5, 6, 1};
    CHECK(run(session, image(other), other).size() == 120);
    run(session, data, kShape);
  }
}

TEST_CASE("run() does not allocate where outliers extend ranges") {
  const auto data = image(kShape);
  const Model narrow = model_of_densities({0.02F, 0.04F});
  for (const char* name : {"static", "qpp"}) {
    CAPTURE(name);
    SessionOptions options = scheme(name);
    options.density = 0.01;
    Session session(narrow, options);
    session.prepare({kShape});
    std::vector<float> result(2 * 22 * 26);
    const std::vector<Session::Input> inputs = {{.data = data.data(), .shape = kShape}};
    const Session::OutputAllocator place = [&result](std::size_t, const Shape&) {
      return result.data();
    };
    const std::int64_t before = test::allocations();
    session.run(inputs, place);
    CHECK(test::allocations() - before == 0);
    CHECK(session.bounds().values[1].hi > 0.2F);  // 0.02 and 0.06 of the file
    CHECK(session.bounds().values[2].hi > 0.2F);
    const CountByValue widened = session.stats().widened_bounds;  // one per sample
    REQUIRE(widened.size() == 3);
    CHECK(widened[1].second == 2);
    CHECK(widened[2].second == 2);
  }
}

TEST_CASE("wrong shapes and options are refused with expected and got") {
  Session session(model(), scheme("static"));
  const Shape wrong{1, 8, 8, 3};
  const auto data = image(wrong);
  CHECK_THROWS_WITH_AS(run(session, data, wrong),
                       "input 'x': expected shape [any, 1, any, any], got [1, 3, 8, 8]",
                       ShapeError);
  CHECK_THROWS_AS(Session(model(), scheme("int4")), UnsupportedError);
  CHECK_THROWS_AS(Session(model(), scheme("static", 0)), Error);
  SessionOptions options = scheme("static");
  options.activation_bits = 9;
  CHECK_THROWS_WITH_AS(Session(model(), options), "activation_bits: expected 2 to 8, got 9",
                       UnsupportedError);
  options = scheme("static");
  options.static_bounds = "median";
  CHECK_THROWS_AS(Session(model(), options), UnsupportedError);
  options = scheme("static");
  options.algorithm = "fft";
  CHECK_THROWS_AS(Session(model(), options), UnsupportedError);
}

TEST_CASE("NaN: fp16 passes it on, quantized schemes name the input") {
  auto data = image(kShape);
  data[30] = NAN;
  Session plain(model(), scheme("fp16"));
  bool found = false;
  for (const float value : run(plain, data, kShape)) found = found || std::isnan(value);
  CHECK(found);
  for (const char* name : {"static", "dynamic", "qpp"}) {
    Session session(model(), scheme(name));
    CHECK_THROWS_WITH_AS(run(session, data, kShape), doctest::Contains("sample 0: input 'x'"),
                         NonFiniteError);
    CHECK(run(session, image(kShape), kShape).size() == 2 * 22 * 26);  // and works again afterwards
  }
}

TEST_CASE("an uncalibrated file runs in fp16 only") {
  test::ModelParts parts = test::small_network();
  parts.graph.erase("quantization");
  const Model plain = load_model(parts.bytes(), "test");
  Session session(plain, scheme("fp16"));
  CHECK(run(session, image(kShape), kShape).size() == 2 * 22 * 26);
  CHECK_THROWS_AS(Session(plain, scheme("static")), UnsupportedError);
}

TEST_CASE("one session may be used from several threads") {
  const auto data = image(kShape);
  Session session(model(), scheme("qpp", 2));
  const auto expected = run(session, data, kShape);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) wrong += run(session, data, kShape) != expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(session.stats().runs == 41);
}

TEST_CASE("a density takes its own bounds and predictors of the file") {
  const Model model = model_of_densities({2, 4});
  const auto data = image(kShape);
  for (const char* name : {"static", "qpp"}) {
    CAPTURE(name);
    SessionOptions options = scheme(name);
    Session dense(model, options);
    run(dense, data, kShape);
    for (const auto& [density, factor] : {std::pair{0.01, 2.0F}, std::pair{0.1, 4.0F}}) {
      CAPTURE(density);
      options.density = density;
      Session session(model, options);
      run(session, data, kShape);
      for (std::size_t row = 0; row < 3; ++row) {
        CHECK(session.bounds().values[row].lo == factor * dense.bounds().values[row].lo);
        CHECK(session.bounds().values[row].hi == factor * dense.bounds().values[row].hi);
      }
    }
    options.density = 0.05;
    CHECK_THROWS_WITH_AS(Session(model, options), doctest::Contains("(0.01, 0.1), got 0.05"),
                         UnsupportedError);
  }
}

TEST_CASE("a skipped value: positions inside the network and values read both ways") {
  // c reads b as int8 while y reads b in fp16 too, and the predictor reads a, after the first
  // activation.
  test::ModelParts parts = test::small_network();
  parts.graph["outputs"] = {"y", "b"};
  auto& predictor = parts.graph["quantization"]["predictors"];
  predictor = {{{"position", "x"},
                {"features", test::usual_features()},
                {"rows", {0}},
                {"weight", "w0"},
                {"bias", "b0"}},
               {{"position", "a"},
                {"features", test::usual_features()},
                {"rows", {1, 2}},
                {"weight", "w1"},
                {"bias", "b1"}}};
  parts.tensors["w0"] = test::f32_tensor({2, 5}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  parts.tensors["b0"] = test::f32_tensor({2}, {0, 0});
  parts.tensors["w1"] = test::f32_tensor({4, 5}, std::vector<float>(20, 0.0F));
  parts.tensors["b1"] = test::f32_tensor({4}, {-1, 1, 0, 3});
  const Model both = load_model(parts.bytes(), "test");
  const auto data = image(kShape);
  const auto run_both = [&](const char* name) {
    Session session(both, scheme(name));
    std::vector<std::vector<float>> results(2);
    session.run({{.data = data.data(), .shape = kShape}},
                [&](std::size_t index, const Shape& shape) {
                  results[index].resize(static_cast<std::size_t>(shape.pixels() * shape.channels));
                  return results[index].data();
                });
    return results;
  };
  const auto expected = run_both("fp16");
  for (const char* name : {"static", "dynamic", "qpp"}) {
    const auto got = run_both(name);
    CHECK(signal_to_noise(expected[0], got[0]) > 25);
    CHECK(signal_to_noise(expected[1], got[1]) > 25);
  }
}

}  // namespace qpp
