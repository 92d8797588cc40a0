// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "network/node.h"

namespace qpp {

/// The type in which residual additions, and the paths to them, read values that convolutions read
/// in int8: the int8 value, or the fp16 value before quantization.
enum class ResidualDType : std::uint8_t { int8, fp16 };

/// Which values of a graph a quantized run holds in int8. The rule:
///
/// Convolutions request int8. Operations that propagate int8 read it where their output is read in
/// int8, so that the last operations of a network keep the precision of fp16. Residuals are
/// read in int8 only where their sum is. Nodes marked fp16 read no int8.
struct Int8Plan {
  std::vector<std::size_t> int8_inputs;  // per node: the number of leading inputs read in int8
  /// The qparams group of every value held in int8: the value whose row of the QP table it uses.
  /// That is the value itself, or the group of the input of the operation that shares qparams.
  std::map<std::string, std::string> groups;
  /// The values that are their own group, so need a row: inputs of the graph in the order of their
  /// first use, then outputs of nodes.
  std::vector<std::string> values;
};
Int8Plan plan_int8(std::span<const Node> nodes);

/// The plan of nodes given as JSON: a list of objects with "op", "name", "inputs", "output",
/// "attributes", "tensor_shapes" and maybe "fp16". Operations that the engine does not have, which
/// passes replace, read fp16. Throws ModelError.
Int8Plan plan_int8_of_json(std::string_view nodes, const Limits& limits = {});

/// Int8Plan::int8_inputs where residuals are fp16: sums and residuals are read in fp16, and so is
/// a value on its way there through operations that share qparams. No values but those of
/// plan_int8() are read in int8.
std::vector<std::size_t> count_int8_inputs(std::span<const Node> nodes, ResidualDType residuals);

}  // namespace qpp
