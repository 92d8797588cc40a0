// SPDX-License-Identifier: Apache-2.0

#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>

#include "base/json_field.h"
#include "network/qp_table.h"
#include "ops/operation.h"
#include "support.h"

namespace qpp {
namespace {

/// The operation of a node without tensors.
Operation parse(const std::string& op, const nlohmann::json& attributes) {
  const std::string name = "n";
  const std::string where = "test";
  const nlohmann::json nothing = nlohmann::json::object();
  const std::map<std::string, Tensor> no_tensors;
  const Limits limits;
  Constants constants(no_tensors, limits);
  const OpSchema* schema = find_op_schema(op);
  REQUIRE(schema != nullptr);
  return schema->parse({.op = op,
                        .name = name,
                        .input_count = 1,
                        .attributes = Field(attributes, where),
                        .tensors = Field(nothing, where),
                        .where = where,
                        .limits = limits,
                        .constants = constants});
}

}  // namespace

TEST_CASE("unary activations read their attributes and keep the padding of channels finite") {
  using nlohmann::json;
  struct Case {
    const char* op;
    json attributes;
    float x;
    double expected;
  };
  const Case cases[] = {
      {"abs", json::object(), -2, 2},
      {"neg", json::object(), -2, 2},
      {"exp", json::object(), 2, std::exp(2.0)},
      {"sqrt", json::object(), 2, std::sqrt(2.0)},
      {"pow", {{"exponent", -2}}, 2, 0.25},
      {"elu", {{"alpha", 0.5}}, -1, 0.5 * std::expm1(-1.0)},
      {"softplus", {{"beta", 2}, {"threshold", 20}}, 0.5F, std::log1p(std::exp(1.0)) / 2},
      {"softplus", {{"beta", 2}, {"threshold", 0.5}}, 0.5F, 0.5},
      {"gelu", json::object(), 1, 0.8413447},
      {"gelu_tanh", json::object(), 1, 0.8411920},
      {"mish", json::object(), 1, 0.8650984},
      {"erf", json::object(), 0.5F, std::erf(0.5)},
      {"activation", {{"activation", "clamp"}, {"clamp", {-1, 1}}}, 2, 1},
  };
  const KernelSelection selection = KernelSelection::from_environment();
  const Shape shape{.batch = 1, .height = 2, .width = 3, .channels = 5};
  for (const Case& test : cases) {
    CAPTURE(test.op);
    const Operation operation = parse(test.op, test.attributes);
    const auto op = operation.make({.inputs = {{}}, .output = {}}, {.selection = selection});
    // Functions of the padding may be infinite.
    std::vector<half> src(static_cast<std::size_t>(shape.elements()));
    for (std::int64_t i = 0; i < shape.elements(); ++i) {
      const bool padded = i % shape.stride() >= shape.channels;
      src[static_cast<std::size_t>(i)] = to_half(padded ? 0.0F : test.x);
    }
    std::vector<half> dst(src.size(), to_half(NAN));
    const TensorView input{.data = src.data(), .dtype = DType::f16, .shape = shape};
    ThreadPool pool(2);
    QpTable table(0, 0);
    RunState state = table.state(pool);
    CHECK(op->prepare(std::span(&shape, 1), 2) == shape);
    op->run({.inputs = std::span(&input, 1),
             .output = {.data = dst.data(), .dtype = DType::f16, .shape = shape}},
            state);
    for (std::int64_t i = 0; i < shape.elements(); ++i) {
      const float value = to_float(dst[static_cast<std::size_t>(i)]);
      if (i % shape.stride() < shape.channels) {
        CHECK(value == doctest::Approx(test.expected).epsilon(1e-3));
      } else {
        CHECK(std::isfinite(value));
      }
    }
  }
}

TEST_CASE("attributes that a unary activation does not have are refused") {
  CHECK_THROWS_AS(parse("elu", nlohmann::json::object()), ModelError);
  CHECK_THROWS_AS(parse("elu", {{"alpha", "1"}}), ModelError);
  CHECK_THROWS_AS(parse("elu", {{"alpha", 1e300}}), ModelError);
  CHECK_THROWS_AS(parse("elu", {{"alpha", 1}, {"beta", 1}}), UnsupportedError);
  CHECK_THROWS_AS(parse("abs", {{"alpha", 1}}), UnsupportedError);
}

}  // namespace qpp
