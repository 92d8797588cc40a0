// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "network/node.h"
#include "network/quantization.h"
#include "tensor/tensor.h"

namespace qpp {

/// A checked model file: every Model can be lowered.
struct Model {
  struct Input {
    std::string name;
    std::array<std::optional<std::int64_t>, 4> shape;  // NCHW; empty: any size
  };
  std::string name;
  std::vector<Input> inputs;
  std::vector<std::string> outputs;
  std::vector<Node> nodes;  // in topological order
  std::optional<Quantization> quantization;
  Limits limits;  // of the file and of its runs
};

inline constexpr const char* kFormat = "qppengine";
inline constexpr int kFormatVersion = 2;  // the last; all from 1 on are read

/// A model file before its graph is understood.
struct ModelFile {
  int format_version = kFormatVersion;
  std::string graph_json;
  std::map<std::string, Tensor> tensors;
};

/// Checks the container and its format version. Throws ModelError, also where a limit is exceeded;
/// `source` names the file in messages.
ModelFile read_model_file(std::span<const std::byte> bytes, const std::string& source,
                          const Limits& limits = {});

/// Checks the graph and resolves its tensors. Throws ModelError, UnsupportedError for an operation
/// of a newer version.
Model parse_model(const ModelFile& file, const std::string& source, const Limits& limits = {});

Model load_model(std::span<const std::byte> bytes, const std::string& source,
                 const Limits& limits = {});
Model load_model(const std::string& path, const Limits& limits = {});

}  // namespace qpp
