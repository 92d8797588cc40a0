// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "network/quantization.h"
#include "ops/channel_function.h"
#include "ops/conv2d.h"
#include "ops/elementwise.h"
#include "ops/gather.h"
#include "ops/pool.h"
#include "ops/rearrange.h"
#include "ops/resize.h"
#include "tensor/tensor.h"

namespace qpp {

struct PixelShuffleSpec {
  std::int64_t factor = 1;
  bool inverse = false;
};

struct ConcatSpec {};

/// A node of the graph, in topological order. Values are called by the name of the node output or
/// graph input.
struct Node {
  std::string op;
  std::string name;
  std::vector<std::string> inputs;
  std::string output;
  bool fp16 = false;  // reads fp16 in quantized runs, too
  std::variant<Conv2dSpec, ActivationSpec, PixelShuffleSpec, BinarySpec, PoolSpec, RearrangeSpec,
               ConcatSpec, ResizeSpec, FunctionSpec, SliceSpec, PadSpec, ChannelFunctionSpec>
      spec;
};

/// A model file, checked: whatever is in here can be lowered.
struct Model {
  struct Input {
    std::string name;
    std::array<std::optional<std::int64_t>, 4> shape;  // NCHW; empty: any size
  };
  std::string name;
  std::vector<Input> inputs;
  std::vector<std::string> outputs;
  std::vector<Node> nodes;
  std::optional<Quantization> quantization;
  Limits limits;  // that it keeps to, and its runs shall
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
