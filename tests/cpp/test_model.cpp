// SPDX-License-Identifier: Apache-2.0
//
// Hostile and damaged model files: always a named exception, never a crash.

#include <doctest/doctest.h>

#include "network/session.h"
#include "support.h"

namespace qpp {
namespace {

using test::ModelParts;
using test::small_network;

Model load(const std::vector<std::byte>& bytes) { return load_model(bytes, "test"); }

std::string error_of(const ModelParts& parts) {
  try {
    load(parts.bytes());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a sound file loads") {
  const Model model = load(small_network().bytes());
  CHECK(model.nodes.size() == 4);
  CHECK(model.quantization->values.size() == 3);
}

TEST_CASE("every truncation is a ModelError") {
  const auto bytes = small_network().bytes();
  for (std::size_t size = 0; size < bytes.size(); size += size < 600 ? 1 : 13) {
    CHECK_THROWS_AS(load({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}),
                    ModelError);
  }
}

TEST_CASE("an altered header byte is an Error or harmless, never a crash") {
  const auto sound = small_network().bytes();
  test::Random random(99);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    auto bytes = sound;
    const auto at = static_cast<std::size_t>((random.next() + 1) / 2 * 0.999F * 4000.0F);
    bytes[at % bytes.size()] = static_cast<std::byte>(static_cast<int>((random.next() + 1) * 127));
    try {
      const Model model = load(bytes);
      const Session session(model, {});
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("a header that lies about lengths is refused") {
  CHECK_THROWS_AS(load(ModelParts::join("{", "")), ModelError);
  CHECK_THROWS_AS(load(ModelParts::join("[]", "")), ModelError);
  CHECK_THROWS_AS(load(ModelParts::join(std::string(100000, '['), "")), ModelError);
  auto bytes = small_network().bytes();
  bytes[7] = std::byte{0x7f};  // a header of 2^62 bytes
  CHECK_THROWS_AS(load(bytes), ModelError);
  for (const char* entry :
       {R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})",
        R"({"dtype":"F32","shape":[4],"data_offsets":[0,999]})",
        R"({"dtype":"F32","shape":[3],"data_offsets":[0,16]})",
        R"({"dtype":"I64","shape":[2],"data_offsets":[0,16]})", R"({"dtype":"F32"})", R"(7)"}) {
    CAPTURE(entry);
    CHECK_THROWS_AS(load(ModelParts::join(concat(R"({"t":)", entry, "}"), std::string(16, 'x'))),
                    ModelError);
  }
}

TEST_CASE("messages name the node and tell expected and got") {
  ModelParts parts = small_network();
  parts.graph["nodes"][1]["inputs"] = {"nowhere"};
  CHECK(error_of(parts) ==
        "test: node 'b' (conv2d): the value 'nowhere' is not defined before its use");

  parts = small_network();
  parts.graph["nodes"][0]["op"] = "einsum";
  CHECK(error_of(parts) ==
        "test: node 'a' (einsum): this operation is not known to this version of qppengine");

  parts = small_network();
  parts.tensors.erase("b.weight");
  CHECK(error_of(parts) == "test: node 'b' (conv2d): the file has no tensor 'b.weight'");

  parts = small_network();
  parts.tensors["a.bias"] = test::f32_tensor({2}, {0, 0});
  CHECK(error_of(parts) == "test: node 'a' (conv2d): expected a bias of 12 elements, got 2");

  parts = small_network();
  parts.tensors["a.bias"].bytes[3] = std::byte{0x7f};
  parts.tensors["a.bias"].bytes[2] = std::byte{0xff};
  CHECK(error_of(parts) == "test: node 'a' (conv2d): a tensor holds NaN or infinity");

  parts = small_network();
  parts.graph["nodes"][0]["attributes"]["gain"] = 2;
  CHECK(error_of(parts).find("'gain' is not known to this version") != std::string::npos);

  parts = small_network();
  parts.graph["nodes"][0]["attributes"]["groups"] = 5;
  CHECK(error_of(parts).find("expected 5 groups to divide the filters") != std::string::npos);

  parts = small_network();
  parts.graph["nodes"][0]["fp16"] = 1;
  CHECK(error_of(parts).find("nodes[0].fp16: expected true or false, got number") !=
        std::string::npos);

  parts = small_network();
  parts.metadata["format_version"] = std::string("9");
  CHECK(error_of(parts).find("expected format version 1 to 2, got '9'") != std::string::npos);

  parts = small_network();
  parts.graph["quantization"]["values"] = {"x", "a"};
  CHECK(error_of(parts).find("'b', which is held in int8, is missing") != std::string::npos);

  parts = small_network();
  parts.graph["quantization"]["predictors"] = nlohmann::json::array();
  CHECK(error_of(parts).find("expected one predictor for the value 'x', got 0") !=
        std::string::npos);

  parts = small_network();
  parts.graph["quantization"]["predictors"][0]["position"] = "b";
  CHECK(error_of(parts).find("comes before the position") != std::string::npos);
}

namespace {

std::string header_error(const std::string& header, const std::string& data = "",
                         const Limits& limits = {}) {
  try {
    load_model(ModelParts::join(header, data), "test", limits);
  } catch (const ModelError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("messages are short, however much is wrong") {
  const std::string deep(100000, '[');
  for (const std::string& value :
       {deep + std::string(100000, ']'), "\"" + std::string(100000, 'x') + "\"",
        std::string(R"({"a":[1,2,3]})")}) {
    const std::string error =
        header_error(concat(R"({"t":{"dtype":)", value, R"(,"shape":[],"data_offsets":[0,0]}})"));
    CHECK(!error.empty());
    CHECK(error.size() < 300);
  }
  CHECK(contains(header_error(concat(R"({"t":)", deep)), "exceeds the limit nesting = 64"));
  ModelParts parts = small_network();
  parts.metadata["format_version"] = std::string(100000, '9');
  CHECK(error_of(parts).size() < 300);
  parts = small_network();
  parts.graph["nodes"][0]["op"] = std::string(100000, 'x');
  CHECK(contains(error_of(parts), "exceeds the limit name_bytes = 4096"));
}

TEST_CASE("keys occur once") {
  CHECK(contains(
      header_error(R"({"t":{"dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,4]}})",
                   "xxxx"),
      "the key 'dtype' occurs twice"));
  CHECK(contains(header_error(R"({"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}})"),
                 "__metadata__ occurs twice"));
  CHECK(contains(header_error(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                              R"("t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                              "xxxxyyyy"),
                 "tensor 't': it is described twice"));
  ModelParts parts = small_network();
  const std::string graph = parts.graph.dump();
  for (const char* extra : {R"("nodes":[],)", R"("name":"other",)"}) {
    const ModelFile file{.graph_json = concat("{", extra, graph.substr(1)), .tensors = {}};
    CHECK_THROWS_WITH_AS(parse_model(file, "test"), doctest::Contains("occurs twice"), ModelError);
  }
}

TEST_CASE("every byte of the data belongs to one tensor") {
  const auto two = [](const char* first, const char* second) {
    return concat(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)", first,
                  R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)", second, "}}");
  };
  const std::string data = "xxxxyyyyzzzz";
  CHECK(contains(header_error(two("[0,4]", "[0,4]"), "xxxx"), "begin at 4"));
  CHECK(contains(header_error(two("[0,4]", "[2,6]"), data), "begin at 4"));
  CHECK(contains(header_error(two("[8,12]", "[0,4]"), data), "begin at 4"));
  CHECK(contains(header_error(two("[4,8]", "[0,4]"), data), "span 8 bytes, the file holds 12"));
  CHECK(contains(header_error(two("[4,8]", "[0,4]"), "xxxxyyyy"), "expected a model written by"));
}

TEST_CASE("limits are kept and named") {
  const auto bytes = small_network().bytes();
  const auto with = [&](std::int64_t Limits::* limit, std::int64_t number) {
    Limits limits;
    limits.*limit = number;
    load_model(bytes, "test", limits);
  };
  struct Case {
    std::int64_t Limits::* limit;
    std::int64_t least;  // with which the small network loads
  };
  const std::int64_t header =
      static_cast<std::int64_t>(bytes[0]) | (static_cast<std::int64_t>(bytes[1]) << 8);
  for (const Case& item :
       {Case{&Limits::nodes, 4}, Case{&Limits::rank, 4}, Case{&Limits::inputs, 1},
        Case{&Limits::outputs, 1}, Case{&Limits::window, 3}, Case{&Limits::header_bytes, header}}) {
    with(item.limit, item.least);
    std::string name;
    for (const LimitField& field : kLimitFields) {
      if (field.member == item.limit) name = field.name;
    }
    CAPTURE(name);
    if (item.least > 1) {
      CHECK_THROWS_WITH_AS(with(item.limit, item.least - 1),
                           doctest::Contains(("limit " + name + " = ").c_str()), Error);
    }
  }
  SessionOptions options;
  options.scheme = "fp16";
  Session session(load_model(bytes, "test", {.value_elements = 10000}), options);
  session.prepare({{1, 10, 10, 1}});
  CHECK_THROWS_WITH_AS(session.prepare({{1, 100, 100, 1}}),
                       doctest::Contains("the limit value_elements is 10000"), ShapeError);
  CHECK_THROWS_WITH_AS(Session(load_model(bytes, "test", {.packed_bytes = 100}), options),
                       doctest::Contains("limit packed_bytes = 100"), ModelError);
}

TEST_CASE("one tensor that many nodes read is not expanded for each of them") {
  constexpr int kNodes = 2000;
  ModelParts parts;
  parts.graph = {{"name", "g"},
                 {"inputs", {{{"name", "x"}, {"shape", {1, 64, nullptr, nullptr}}}}},
                 {"outputs", {"y0"}},
                 {"nodes", nlohmann::json::array()}};
  parts.tensors["w"] = test::f32_tensor({64, 64, 3, 3}, std::vector<float>(64 * 64 * 9, 0.1F));
  for (int i = 0; i < kNodes; ++i) {
    auto node = test::conv_node(concat("y", i), "x", 1, "none");
    node["tensors"] = {{"weight", "w"}};
    parts.graph["nodes"].push_back(node);
  }
  CHECK(contains(error_of(parts), "exceeds the limit sharing = 2"));
  // Few may, of small files any number.
  parts.graph["nodes"].erase(parts.graph["nodes"].begin() + 100, parts.graph["nodes"].end());
  CHECK(error_of(parts).empty());
  // Padding to vectors of channels and filters makes some weights much larger.
  parts.tensors["w"] = test::f32_tensor({1, 1, 1024, 1024}, std::vector<float>(1 << 20, 0.1F));
  parts.graph["inputs"][0]["shape"][1] = 1;
  parts.graph["nodes"].erase(parts.graph["nodes"].begin() + 8, parts.graph["nodes"].end());
  CHECK(contains(error_of(parts), "exceeds the limit packing = 16"));
}

}  // namespace qpp
