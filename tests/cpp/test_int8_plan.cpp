// SPDX-License-Identifier: Apache-2.0

#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "network/int8_plan.h"

namespace qpp {
namespace {

using nlohmann::json;
using Names = std::vector<std::string>;

/// A node that is named as its output.
json node(const std::string& op, const Names& inputs, const std::string& output) {
  return {{"op", op},
          {"name", output},
          {"inputs", inputs},
          {"output", output},
          {"fp16", false},
          {"attributes", json::object()},
          {"tensor_shapes", json::object()}};
}

json conv(const Names& inputs, const std::string& output) {
  json result = node("conv2d", inputs, output);
  result["tensor_shapes"] = {{"weight", {8, 8, 3, 3}}, {"bias", {8}}};
  return result;
}

json in_fp16(json node) {
  node["fp16"] = true;
  return node;
}

/// A gain and a shift of every channel.
json scale(const std::string& input, const std::string& output) {
  json result = node("conv2d", {input}, output);
  result["attributes"] = {{"groups", 8}};
  result["tensor_shapes"] = {{"weight", {8, 1, 1, 1}}};
  return result;
}

struct Case {
  const char* rule;
  json nodes;
  std::vector<std::size_t> int8_inputs;
  std::map<std::string, std::string> groups;
  Names values;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"a convolution requests int8, a network's end stays fp16",
       {conv({"x"}, "a"), node("add", {"a", "x"}, "b")},
       {1, 0},
       {{"x", "x"}},
       {"x"}},
      {"unary activations read fp16, and so does what precedes them",
       {node("add", {"x", "x"}, "a"), node("sigmoid", {"a"}, "b"), conv({"b"}, "c")},
       {0, 0, 1},
       {{"b", "b"}},
       {"b"}},
      {"sums, products, average pools and concatenations propagate int8",
       {node("add", {"x", "z"}, "a"), node("mul", {"a", "z"}, "b"),
        node("global_avg_pool", {"b"}, "c"), node("concat", {"c", "c"}, "d"), conv({"d"}, "e")},
       {2, 2, 1, 2, 1},
       {{"x", "x"}, {"z", "z"}, {"a", "a"}, {"b", "b"}, {"c", "c"}, {"d", "d"}},
       {"x", "z", "a", "b", "c", "d"}},
      {"what only selects or moves elements shares qparams",
       {node("max_pool2d", {"x"}, "a"), node("pixel_shuffle", {"a"}, "b"),
        node("adaptive_avg_pool2d", {"b"}, "c"), node("resize", {"c"}, "d"), conv({"d"}, "e")},
       {1, 1, 1, 1, 1},
       {{"x", "x"}, {"a", "x"}, {"b", "x"}, {"c", "c"}, {"d", "c"}},
       {"x", "c"}},
      {"a gain of every channel propagates, but does not request int8",
       {scale("x", "a"), conv({"a"}, "b"), scale("b", "c")},
       {1, 1, 0},
       {{"x", "x"}, {"a", "a"}},
       {"x", "a"}},
      {"a residual is int8 where the sum is",
       {conv({"x", "z"}, "a"), conv({"a", "x"}, "b")},
       {2, 1},
       {{"x", "x"}, {"z", "z"}, {"a", "a"}},
       {"x", "z", "a"}},
      {"nodes marked fp16 read no int8, and pass no wish on",
       {node("add", {"x", "x"}, "a"), in_fp16(conv({"a"}, "b")), conv({"b"}, "c")},
       {0, 0, 1},
       {{"b", "b"}},
       {"b"}},
      {"operations that the engine does not have read fp16",
       {node("batch_norm", {"x"}, "a"), conv({"a"}, "b")},
       {0, 1},
       {{"a", "a"}},
       {"a"}},
      {"a value that is read in both types is held in int8 once",
       {conv({"x"}, "a"), node("max_pool2d", {"a"}, "b"), node("softmax", {"b"}, "c"),
        conv({"b"}, "d"), conv({"a"}, "e")},
       {1, 1, 0, 1, 1},
       {{"x", "x"}, {"a", "a"}, {"b", "a"}},
       {"x", "a"}},
  };
  return kCases;
}

}  // namespace

TEST_CASE("the int8 plan of small graphs follows its rules") {
  for (const Case& test : cases()) {
    CAPTURE(test.rule);
    const Int8Plan plan = plan_int8_of_json(test.nodes.dump());
    CHECK(plan.int8_inputs == test.int8_inputs);
    CHECK(plan.groups == test.groups);
    CHECK(plan.values == test.values);
  }
}

TEST_CASE("the plan of nodes that are not valid is an error") {
  CHECK_THROWS_AS(plan_int8_of_json("[{}]"), ModelError);
  CHECK_THROWS_AS(plan_int8_of_json("[1]"), ModelError);
  CHECK_THROWS_AS(plan_int8_of_json("]"), ModelError);
  CHECK_THROWS_AS(plan_int8_of_json("[{\"op\": 1}]"), ModelError);
  CHECK(plan_int8_of_json("[]").values.empty());
}

}  // namespace qpp
