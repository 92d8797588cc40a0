// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>

#include "network/session.h"
#include "support.h"

namespace qpp {
namespace {

/// A scheme of a test: the bounds of every value are [-1, 1].
class ConstantSource final : public QParamsSource {
 public:
  explicit ConstantSource(int bits) : bits_(bits) {}

  void fill_rows(QpTable& table) const override {
    std::fill(table.qparams.begin(), table.qparams.end(), choose_qparams(-1, 1, bits_));
  }

 private:
  int bits_;
};

const Scheme kConstant{
    "constant",
    [](const Model& /*model*/, const SessionOptions& options) -> std::unique_ptr<QParamsSource> {
      return std::make_unique<ConstantSource>(options.activation_bits);
    }};

const Shape kShape{1, 11, 13, 1};

std::vector<float> image() {
  std::vector<float> data = test::Random(21).list(kShape.pixels(), 0.5F);
  for (float& value : data) value += 0.5F;
  return data;
}

std::vector<float> run(Session& session) {
  const std::vector<float> data = image();
  std::vector<float> result;
  session.run({{.data = data.data(), .shape = kShape}}, [&](std::size_t, const Shape& output) {
    result.resize(static_cast<std::size_t>(output.pixels() * output.channels));
    return result.data();
  });
  return result;
}

}  // namespace

TEST_CASE("a scheme is one class and one row") {
  test::ModelParts parts = test::small_network();
  // The bounds of "static" must be the same.
  parts.tensors["mean"] = test::f32_tensor({3, 2}, {-1, 1, -1, 1, -1, 1});
  const Model model = load_model(parts.bytes(), "test");
  for (const int bits : {8, 4}) {
    SessionOptions options;
    options.activation_bits = bits;
    Session session(model, options, kConstant);
    const std::vector<float> result = run(session);
    for (const Range& bounds : session.bounds().values) {
      CHECK(bounds.lo == -1);
      CHECK(bounds.hi == 1);
    }
    options.scheme = "static";
    Session expected(model, options);
    CHECK(result == run(expected));
    CHECK(session.explain().size() == expected.explain().size());
  }
}

TEST_CASE("unknown schemes are refused with a list of all") {
  CHECK_THROWS_WITH_AS(
      find_scheme("int4"),
      "scheme: expected one of fp16, static, dynamic, qpp, calibration, got \"int4\"",
      UnsupportedError);
  CHECK(find_scheme("qpp").name == std::string("qpp"));
}

TEST_CASE("options are set by name") {
  SessionOptions options;
  set_option(options, "scheme", "dynamic");
  set_option(options, "threads", "3");
  set_option(options, "density", "0.01");
  set_option(options, "residual_dtype", "fp16");
  CHECK(options.scheme == "dynamic");
  CHECK(options.threads == 3);
  CHECK(options.density == 0.01);
  CHECK(options.residual_dtype == "fp16");
  check_options(options);
  CHECK_THROWS_WITH_AS(set_option(options, "threads", "two"),
                       "threads: expected a whole number, got \"two\"", UnsupportedError);
  CHECK_THROWS_WITH_AS(set_option(options, "threads", "99999999999"),
                       doctest::Contains("expected a whole number"), UnsupportedError);
  CHECK_THROWS_WITH_AS(set_option(options, "density", "0.01x"),
                       "density: expected a number, got \"0.01x\"", UnsupportedError);
  CHECK_THROWS_WITH_AS(set_option(options, "colour", "red"),
                       doctest::Contains("expected one of the options scheme, density"),
                       UnsupportedError);
}

TEST_CASE("values of options are checked") {
  const auto error_of = [](const std::string& name, const std::string& text) -> std::string {
    SessionOptions options;
    set_option(options, name, text);
    try {
      check_options(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(error_of("cores", "little") == "cores: expected \"all\" or \"big\", got \"little\"");
  CHECK(error_of("activation_bits", "9") == "activation_bits: expected 2 to 8, got 9");
  CHECK(error_of("threads", "0") == "threads: expected 1 to 256, got 0");
  CHECK(error_of("density", "0") == "density: expected a number above 0 and up to 0.1, got 0");
  CHECK(error_of("algorithm", "direct").empty());
  for (const SessionOption& option : session_options()) {
    CHECK(std::string(option.help).ends_with('.'));
    CHECK((option.type == OptionType::choice) == !option.choices.empty());
  }
}

}  // namespace qpp
