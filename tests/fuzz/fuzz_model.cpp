// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer's target: loads a model file in every scheme, prepares it and runs it where that costs
// little. The mutator knows the container, without which hardly a mutant would be read beyond its
// first bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "network/session.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using nlohmann::json;
using qpp::Shape;

constexpr std::int64_t kMaxMacs = 1 << 20;  // of a network that is run
constexpr std::size_t kMaxArena = 1 << 20;

Shape fill(const qpp::Model::Input& input) {
  return {.batch = input.shape[0].value_or(2),
          .height = input.shape[2].value_or(9),
          .width = input.shape[3].value_or(10),
          .channels = *input.shape[1]};
}

void run(qpp::Session& session) {
  std::vector<Shape> shapes;
  for (const auto& input : session.inputs()) shapes.push_back(fill(input));
  session.prepare(shapes);
  std::int64_t macs = 0;
  for (const qpp::StepInfo& step : session.explain()) macs += step.macs;
  std::int64_t elements = 0;
  for (const Shape& shape : shapes) elements += shape.elements();
  if (macs > kMaxMacs || session.memory().arena > kMaxArena || elements > kMaxMacs) return;

  std::vector<std::vector<float>> data;
  std::vector<qpp::Session::Input> inputs;
  for (const Shape& shape : shapes) {
    data.emplace_back(static_cast<std::size_t>(shape.pixels() * shape.channels), 0.5F);
    inputs.push_back({.data = data.back().data(), .shape = shape});
  }
  std::vector<std::vector<float>> outputs(session.outputs().size());
  session.run(inputs, [&](std::size_t index, const Shape& shape) {
    outputs[index].resize(static_cast<std::size_t>(shape.pixels() * shape.channels));
    return outputs[index].data();
  });
}

/// A model file in parts: header without graph, graph, tensors.
struct Parts {
  json header;
  std::string graph;
  std::string tensors;
};

bool split(const std::string& file, Parts& parts) {
  std::uint64_t length = 0;
  if (file.size() < sizeof(length)) return false;
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > file.size() - sizeof(length)) return false;
  const std::string text = file.substr(sizeof(length), length);
  if (text.find("[[[[[[[[") != std::string::npos) return false;  // json copies recursively
  parts.header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parts.header.is_object() || !parts.header.contains("__metadata__")) return false;
  json& metadata = parts.header["__metadata__"];
  if (!metadata.is_object() || !metadata.contains("graph") || !metadata["graph"].is_string())
    return false;
  parts.graph = metadata["graph"].get<std::string>();
  parts.tensors = file.substr(sizeof(length) + length);
  return true;
}

std::string join(Parts& parts) {
  parts.header["__metadata__"]["graph"] = parts.graph;
  const std::string text =
      parts.header.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text + parts.tensors;
}

void mutate_text(std::string& text, std::size_t longest) {
  const std::size_t size = text.size();
  text.resize(size + std::min<std::size_t>(longest, 64));
  text.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(text.data()), size, text.size()));
}

void find_places(json& value, int depth, std::vector<json*>& places) {
  places.push_back(&value);
  if (!value.is_structured() || depth == 0) return;
  for (json& item : value) find_places(item, depth - 1, places);
}

/// Changes one value of a document: another one of it, junk, or a number near by.
void mutate_json(json& document, std::mt19937& random) {
  static const std::vector<json> kJunk = {nullptr,
                                          true,
                                          -1,
                                          0,
                                          1,
                                          2,
                                          3,
                                          65535,
                                          1LL << 24,
                                          1LL << 31,
                                          1LL << 62,
                                          1e30,
                                          "",
                                          "x",
                                          json::array(),
                                          json::object(),
                                          json::array({1, 1}),
                                          json::array({0, 0}),
                                          json::array({65536, 65536}),
                                          json::array({7, 7})};
  std::vector<json*> places;
  constexpr int kDepth = 8;
  find_places(document, kDepth, places);
  json& place = *places[random() % places.size()];
  switch (random() % 5) {
    case 0:
      place = kJunk[random() % kJunk.size()];
      break;
    case 1:
      place = json(*places[random() % places.size()]);
      break;
    case 2:
      if (place.is_array() && !place.empty()) place.erase(random() % place.size());
      break;
    case 3:
      if (place.is_array() && !place.empty()) place.push_back(json(place[random() % place.size()]));
      break;
    default:
      if (place.is_number_integer())
        place = place.get<std::int64_t>() + (random() % 2 == 0 ? 1 : -1);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  // Small limits, so that accepted files run fast.
  const qpp::Limits limits{.packed_bytes = 1 << 26, .value_elements = 1 << 22};
  try {
    const qpp::Model model = qpp::load_model(bytes, "file", limits);
    for (const char* scheme : {"fp16", "static", "dynamic", "qpp", "calibration"}) {
      for (const double density : {0.0, 0.03}) {
        qpp::SessionOptions options;
        options.scheme = scheme;
        if (density > 0) options.density = density;
        if (size % 2 == 0) options.algorithm = "direct";
        try {
          qpp::Session session(model, options);
          run(session);
        } catch (const qpp::Error&) {
        }
      }
    }
  } catch (const qpp::Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  std::mt19937 random(seed);
  Parts parts;
  const std::string file(reinterpret_cast<const char*>(data), size);
  const unsigned kind = random() % 16;
  if (kind == 0 || !split(file, parts)) return LLVMFuzzerMutate(data, size, max_size);
  const std::size_t room = max_size - size;
  if (kind == 1) {
    mutate_text(parts.tensors, room);
  } else if (kind == 2) {
    mutate_json(parts.header, random);
    if (!parts.header.is_object() || !parts.header["__metadata__"].is_object()) return size;
  } else if (kind < 6) {
    mutate_text(parts.graph, room);
  } else {
    json graph = json::parse(parts.graph, nullptr, /*allow_exceptions=*/false);
    if (graph.is_discarded()) {
      mutate_text(parts.graph, room);
    } else {
      for (unsigned i = 0; i < 1 + kind % 3; ++i) mutate_json(graph, random);
      parts.graph = graph.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
    }
  }
  const std::string joined = join(parts);
  if (joined.size() > max_size) return size;
  std::memcpy(data, joined.data(), joined.size());
  return joined.size();
}
