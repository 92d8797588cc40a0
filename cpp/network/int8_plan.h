// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "network/model.h"

namespace qpp {

/// What a quantized run holds in int8. Convolutions read int8; the operations that follow (sums,
/// products, pools, concatenations, 1x1 convolutions of every channel by itself, and what only
/// moves elements) do where their output is wanted in int8, so that a network's last operations
/// keep the digits of fp16; so do convolutions as to what they add. Nodes that keep fp16 read no
/// int8.
struct Int8Plan {
  std::vector<std::size_t> int8_inputs;  // per node: so many of the first ones are read in int8
  /// The value whose row of the QP table an int8 value is held with: itself, but for the output of
  /// an operation that keeps levels as they are, such as a max pool or resizing.
  std::map<std::string, std::string> row_owners;
  std::vector<std::string> values;  // those that need a row, in no order
};
Int8Plan plan_int8(const Model& model);

/// Int8Plan::int8_inputs when skip connections are in fp16: sums and residuals are read in fp16,
/// and so is what keeps the levels of a value on its way there. No values but those of plan_int8()
/// are read in int8.
std::vector<std::size_t> count_int8_inputs_but_in_sums(const Model& model);

}  // namespace qpp
