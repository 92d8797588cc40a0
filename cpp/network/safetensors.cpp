// SPDX-License-Identifier: Apache-2.0
#include "network/safetensors.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace qpp {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "the format and the engine are little-endian");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::int64_t kLargestSize = std::int64_t{1} << 31;

Tensor parse_tensor(const std::string& name, const json& entry, std::span<const std::byte> data,
                    const std::string& source) {
  const std::string where = concat(source, ": tensor '", name, "': ");
  QPP_CHECK(entry.is_object() && entry.contains("dtype") && entry.contains("shape") &&
                entry.contains("data_offsets"),
            ModelError, where, "expected dtype, shape and data_offsets");
  Tensor tensor;
  const std::string dtype = entry["dtype"].is_string() ? entry["dtype"].get<std::string>() : "";
  QPP_CHECK(dtype == "F16" || dtype == "F32", ModelError, where, "expected dtype F16 or F32, got ",
            entry["dtype"].dump());
  tensor.dtype = dtype == "F16" ? DType::f16 : DType::f32;

  QPP_CHECK(entry["shape"].is_array() && entry["shape"].size() <= 8, ModelError, where,
            "shape is not a list of sizes");
  std::uint64_t bytes = size_of(tensor.dtype);
  for (const json& size : entry["shape"]) {
    QPP_CHECK(size.is_number_unsigned() &&
                  size.get<std::uint64_t>() <= static_cast<std::uint64_t>(kLargestSize),
              ModelError, where, "shape is not a list of sizes");
    tensor.shape.push_back(size.get<std::int64_t>());
    bytes *= size.get<std::uint64_t>();
    QPP_CHECK(bytes <= data.size(), ModelError, where,
              "its shape needs more bytes than the file has");
  }

  const json& offsets = entry["data_offsets"];
  QPP_CHECK(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                offsets[1].is_number_unsigned(),
            ModelError, where, "data_offsets is not a pair of offsets");
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  QPP_CHECK(begin <= end && end <= data.size(), ModelError, where,
            "expected data_offsets inside the ", data.size(), " bytes of data, got ", begin, " to ",
            end, "; is the file truncated?");
  QPP_CHECK(end - begin == bytes, ModelError, where, "its shape needs ", bytes,
            " bytes, data_offsets span ", end - begin);
  const auto range = data.subspan(begin, bytes);
  tensor.bytes.assign(range.begin(), range.end());
  return tensor;
}

}  // namespace

Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& source,
                              const Limits& limits) {
  QPP_CHECK(bytes.size() > kLengthBytes, ModelError, source, ": expected a model file, got ",
            bytes.size(), " bytes");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  QPP_CHECK(header_bytes <= bytes.size() - kLengthBytes, ModelError, source, ": the header claims ",
            header_bytes, " bytes, the file has ", bytes.size(),
            "; it is truncated or no model file");
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  const json header = json::parse(text, text + header_bytes, nullptr, /*allow_exceptions=*/false);
  QPP_CHECK(header.is_object(), ModelError, source,
            ": the header is not JSON; the file is altered or no model file");

  Safetensors result;
  const auto data = bytes.subspan(kLengthBytes + header_bytes);
  std::uint64_t used = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      QPP_CHECK(entry.is_object(), ModelError, source, ": __metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        QPP_CHECK(value.is_string(), ModelError, source, ": __metadata__ '", key,
                  "' is not a string");
        result.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    const auto [position, inserted] =
        result.tensors.emplace(name, parse_tensor(name, entry, data, source));
    used += position->second.bytes.size();
  }
  QPP_CHECK(used == data.size(), ModelError, source, ": the tensors span ", used,
            " bytes, the file holds ", data.size());
  return result;
}

AlignedVector<std::byte> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  QPP_CHECK(file.is_open(), ModelError, path, ": cannot open: ", std::strerror(errno));
  const std::streamoff size = file.tellg();
  QPP_CHECK(size >= 0, ModelError, path, ": cannot read: not a regular file");
  AlignedVector<std::byte> bytes(static_cast<std::size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  QPP_CHECK(file.good() || size == 0, ModelError, path, ": cannot read: ", std::strerror(errno));
  return bytes;
}

}  // namespace qpp
