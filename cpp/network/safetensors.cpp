// SPDX-License-Identifier: Apache-2.0
#include "network/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "base/check.h"
#include "base/json_reader.h"

namespace qpp {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "the format and the engine are little-endian");

constexpr std::uint64_t kLengthBytes = 8;

/// Where the bytes of a tensor are.
struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::map<std::string, Tensor>::value_type* tensor = nullptr;
};

std::string place(const std::string& source, const std::string& tensor) {
  return concat(source, ": tensor '", tensor, "': ");
}

/// Dtype and shape of a tensor, and where its bytes are in the `data_bytes` of the file.
Extent parse_tensor(const json& entry, Tensor& tensor, std::uint64_t data_bytes,
                    const std::string& where, const Limits& limits) {
  QPP_CHECK(entry.is_object() && entry.contains("dtype") && entry.contains("shape") &&
                entry.contains("data_offsets"),
            ModelError, where, "expected dtype, shape and data_offsets");
  const json& dtype = entry["dtype"];
  QPP_CHECK(dtype == "F16" || dtype == "F32" || dtype == "I8", ModelError, where,
            "expected dtype F16, F32 or I8, got ", describe(dtype));
  tensor.dtype = dtype == "F16" ? DType::f16 : dtype == "F32" ? DType::f32 : DType::qsi8;

  const json& shape = entry["shape"];
  QPP_CHECK(shape.is_array(), ModelError, where, "shape is not a list of sizes");
  check_limit(limits, &Limits::rank, shape.size(), where, "its rank");
  std::uint64_t bytes = size_of(tensor.dtype);
  for (const json& size : shape) {
    QPP_CHECK(size.is_number_unsigned(), ModelError, where, "shape is not a list of sizes");
    check_limit(limits, &Limits::dimension, size.get<std::uint64_t>(), where, "a dimension");
    tensor.shape.push_back(size.get<std::int64_t>());
    bytes *= size.get<std::uint64_t>();
    QPP_CHECK(bytes <= data_bytes, ModelError, where,
              "its shape needs more bytes than the file has");
  }

  const json& offsets = entry["data_offsets"];
  QPP_CHECK(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                offsets[1].is_number_unsigned(),
            ModelError, where, "data_offsets is not a pair of offsets");
  const Extent extent{.begin = offsets[0].get<std::uint64_t>(),
                      .end = offsets[1].get<std::uint64_t>()};
  QPP_CHECK(extent.begin <= extent.end && extent.end <= data_bytes, ModelError, where,
            "expected data_offsets inside the ", data_bytes, " bytes of data, got ", extent.begin,
            " to ", extent.end, "; is the file truncated?");
  QPP_CHECK(extent.end - extent.begin == bytes, ModelError, where, "its shape needs ", bytes,
            " bytes, data_offsets span ", extent.end - extent.begin);
  return extent;
}

void parse_metadata(json& entry, std::map<std::string, std::string>& metadata,
                    const std::string& source) {
  QPP_CHECK(entry.is_object(), ModelError, source, ": __metadata__ is not an object");
  for (auto& [key, value] : entry.items()) {
    QPP_CHECK(value.is_string(), ModelError, source, ": __metadata__ '", key, "' is not a string");
    metadata[key] = std::move(value.get_ref<std::string&>());
  }
}

/// Copies the bytes of all tensors, which must be all bytes of the file, each belonging to one.
void copy_tensors(std::vector<Extent>& extents, std::span<const std::byte> data,
                  const std::string& source) {
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t used = 0;
  for (const Extent& extent : extents) {
    QPP_CHECK(extent.begin == used, ModelError, place(source, extent.tensor->first),
              "expected its bytes to begin at ", used, ", where those of the tensor before end, ",
              "got ", extent.begin);
    used = extent.end;
  }
  QPP_CHECK(used == data.size(), ModelError, source, ": the tensors span ", used,
            " bytes, the file holds ", data.size());
  for (const Extent& extent : extents) {
    const auto range = data.subspan(extent.begin, extent.end - extent.begin);
    extent.tensor->second.bytes.assign(range.begin(), range.end());
  }
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
  check_limit(limits, &Limits::header_bytes, header_bytes, source, ": the length of the header");
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  const auto data = bytes.subspan(kLengthBytes + header_bytes);

  Safetensors result;
  std::vector<Extent> extents;
  const auto read = [&](const std::string& name, json& entry) {
    if (name == "__metadata__") {
      QPP_CHECK(result.metadata.empty(), ModelError, source, ": __metadata__ occurs twice");
      parse_metadata(entry, result.metadata, source);
      return false;
    }
    const auto [position, inserted] = result.tensors.try_emplace(name);
    QPP_CHECK(inserted, ModelError, place(source, name), "it is described twice");
    extents.push_back(
        parse_tensor(entry, position->second, data.size(), place(source, name), limits));
    extents.back().tensor = &*position;
    return false;
  };
  parse_json({text, header_bytes}, concat(source, ": the header"), limits,
             {.depth = 1, .keep = read, .long_strings = true});
  copy_tensors(extents, data, source);
  return result;
}

AlignedVector<std::byte> read_file(const std::string& path) {
  QPP_CHECK(path.find('\0') == std::string::npos, FileError,
            "cannot read a file whose path holds a null character");
  // Only regular files have a size, and opening a pipe waits for its other end.
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  QPP_CHECK(std::filesystem::exists(status), FileError, "cannot read '", path,
            "': ", error.message());
  QPP_CHECK(!std::filesystem::is_directory(status), FileError, "cannot read '", path,
            "': ", std::make_error_code(std::errc::is_a_directory).message());
  QPP_CHECK(std::filesystem::is_regular_file(status), FileError, "cannot read '", path,
            "': expected a regular file, got a device, pipe or socket");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  QPP_CHECK(file.is_open(), FileError, "cannot read '", path, "': ", std::strerror(errno));
  const std::streamoff size = file.tellg();
  AlignedVector<std::byte> bytes;
  try {
    bytes.resize(static_cast<std::size_t>(size));
  } catch (const std::exception&) {
    throw FileError(concat("cannot read '", path, "': no memory for its ", size, " bytes"));
  }
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  QPP_CHECK(file.good() || size == 0, FileError, "cannot read '", path,
            "': ", std::strerror(errno));
  return bytes;
}

}  // namespace qpp
