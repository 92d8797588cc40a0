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
  CHECK(error_of(parts).find("expected format version 1, got '9'") != std::string::npos);

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

}  // namespace qpp
