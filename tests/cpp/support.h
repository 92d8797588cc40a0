// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/half.h"
#include "tensor/qparams.h"
#include "tensor/tensor.h"
#include "tensor/view.h"

namespace qpp::test {

/// Calls of operator new so far (allocations.cpp).
std::int64_t allocations();
/// Makes the allocation of this thread that follows `index` others throw; -1: none.
void fail_allocation(std::int64_t index);

/// A temporary folder of small text files, such as sysfs has.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "qppengine.XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] std::string path() const { return path_.string(); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
  }

 private:
  std::filesystem::path path_;
};

/// Deterministic numbers.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}
  /// Uniform over [-1, 1).
  float next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 0x1p-31F;
  }
  std::vector<float> list(std::int64_t count, float magnitude = 1) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = next() * magnitude;
    return values;
  }

 private:
  std::uint64_t state_;
};

inline Tensor f32_tensor(const std::vector<std::int64_t>& shape, const std::vector<float>& values) {
  Tensor tensor{.dtype = DType::f32, .shape = shape, .bytes = {}};
  tensor.bytes.resize(values.size() * sizeof(float));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

/// The parts of a model file, for tests to alter before they are joined.
struct ModelParts {
  nlohmann::json graph;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata = {{"format", "qppengine"}, {"format_version", "2"}};

  [[nodiscard]] std::vector<std::byte> bytes() const {
    nlohmann::json header;
    header["__metadata__"] = metadata;
    header["__metadata__"]["graph"] = graph.dump();
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      const std::size_t begin = data.size();
      data.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
      header[name] = {{"dtype", tensor.dtype == DType::f16 ? "F16" : "F32"},
                      {"shape", tensor.shape},
                      {"data_offsets", {begin, data.size()}}};
    }
    return join(header.dump(), data);
  }

  static std::vector<std::byte> join(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    std::string all(reinterpret_cast<const char*>(&length), sizeof(length));
    all += header + data;
    const auto* first = reinterpret_cast<const std::byte*>(all.data());
    return {first, first + all.size()};
  }
};

inline nlohmann::json conv_node(const std::string& name, const std::string& input, int padding,
                                const std::string& activation) {
  return {{"op", "conv2d"},
          {"name", name},
          {"inputs", {input}},
          {"output", name},
          {"attributes",
           {{"stride", {1, 1}},
            {"padding", {padding, padding}},
            {"dilation", {1, 1}},
            {"activation", activation}}},
          {"tensors", {{"weight", name + ".weight"}, {"bias", name + ".bias"}}}};
}

/// Three quantiles, mean and max.
inline nlohmann::json usual_features() {
  return {{{"kind", "quantile"}, {"alpha", 0.9}},
          {{"kind", "quantile"}, {"alpha", 0.99}},
          {{"kind", "quantile"}, {"alpha", 0.999}},
          {{"kind", "mean"}},
          {{"kind", "max"}}};
}

/// A small super-resolution network, calibrated by hand: 3x3 conv to 12 channels with tanh, 3x3
/// conv to 8 channels with ReLU, 3x3 conv to 4 channels, pixel shuffle by 2. Input [any, 1, any,
/// any] of values in [0, 1].
inline ModelParts small_network() {
  ModelParts parts;
  Random random(7);
  const auto add_conv = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    parts.tensors[name + ".weight"] = f32_tensor({out, in, 3, 3}, random.list(out * in * 9, 0.4F));
    parts.tensors[name + ".bias"] = f32_tensor({out}, random.list(out, 0.2F));
  };
  add_conv("a", 12, 1);
  add_conv("b", 8, 12);
  add_conv("c", 4, 8);
  parts.graph["name"] = "small";
  parts.graph["inputs"] = {{{"name", "x"}, {"shape", {nullptr, 1, nullptr, nullptr}}}};
  parts.graph["outputs"] = {"y"};
  parts.graph["nodes"] = {conv_node("a", "x", 1, "tanh"),
                          conv_node("b", "a", 1, "relu"),
                          conv_node("c", "b", 1, "none"),
                          {{"op", "pixel_shuffle"},
                           {"name", "y"},
                           {"inputs", {"c"}},
                           {"output", "y"},
                           {"attributes", {{"upscale_factor", 2}}},
                           {"tensors", nlohmann::json::object()}}};
  // x spans [0, 1], a the range of tanh, b up to 3; the predictor scales them with the input's max.
  parts.tensors["mean"] = f32_tensor({3, 2}, {0, 1, -1, 1, 0, 3});
  parts.tensors["range"] = f32_tensor({3, 2}, {0, 1, -1, 1, 0, 4});
  parts.tensors["calibrated_range"] =
      f32_tensor({3, 4}, {0, 0, 0.5F, 1, -1, -0.5F, 0.5F, 1, 0, 0, 1, 4});
  std::vector<float> weight(6 * 5, 0.0F);
  weight[1 * 5 + 4] = 1;  // hi of x = max
  parts.tensors["weight"] = f32_tensor({6, 5}, weight);
  parts.tensors["bias"] = f32_tensor({6}, {0, 0, -1, 1, 0, 3});
  parts.graph["quantization"] = {{"alpha", 1.0},
                                 {"values", {"x", "a", "b"}},
                                 {"static", {{"mean", "mean"}, {"range", "range"}}},
                                 {"default_static", "mean"},
                                 {"calibrated_range", "calibrated_range"},
                                 {"predictors",
                                  {{{"position", "x"},
                                    {"features", usual_features()},
                                    {"rows", {0, 1, 2}},
                                    {"weight", "weight"},
                                    {"bias", "bias"}}}}};
  return parts;
}

}  // namespace qpp::test
