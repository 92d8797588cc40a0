// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "base/limits.h"
#include "tensor/tensor.h"

namespace qpp {

/// The contents of a safetensors file: metadata strings and named tensors (F16 and F32).
struct Safetensors {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;
};

/// Parses the format (8-byte little-endian header length, JSON header, tensor bytes) and checks
/// every length in it. Throws ModelError; `source` names the file in messages.
Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& source,
                              const Limits& limits);

/// The bytes of a file. Throws ModelError when it cannot be read.
AlignedVector<std::byte> read_file(const std::string& path);

}  // namespace qpp
