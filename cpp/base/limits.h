// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "base/check.h"

namespace qpp {

/// The sizes that a model file can request. The defaults are far above those of real networks, and
/// low enough that the cost of a file is in proportion to its size. Users who trust a file can
/// raise them, each up to `largest` in kLimitFields: the arithmetic of the engine does not overflow
/// there. python/qppengine/limits.py has the same fields.
struct Limits {
  std::int64_t header_bytes = 1 << 26;      // of the text that describes a network
  std::int64_t nesting = 64;                // of lists and objects in that text
  std::int64_t json_values = 1 << 18;       // of one node, or of all except nodes
  std::int64_t name_bytes = 4096;           // of a node, value or tensor
  std::int64_t nodes = 20'000;              // of a network
  std::int64_t inputs = 4096;               // of a network
  std::int64_t outputs = 4096;              // of a network
  std::int64_t rank = 8;                    // dimensions of a constant
  std::int64_t dimension = 1 << 24;         // size of one dimension of a tensor
  std::int64_t window = 1 << 16;            // kernel size, stride, padding, dilation; groups
  std::int64_t constant_bytes = 1LL << 32;  // as float32, counted for every node that reads them
  std::int64_t computed_bytes = 1 << 25;    // of constants that importers compute
  std::int64_t sharing = 2;   // constants that nodes read, relative to those in the file
  std::int64_t packing = 16;  // bytes of packed constants, relative to those in the file
  std::int64_t packed_bytes = 1LL << 33;    // of constants as kernels read them
  std::int64_t value_elements = 1LL << 36;  // of one value of a run
};

struct LimitField {
  const char* name;
  std::int64_t Limits::* member;
  std::int64_t largest;
};

inline constexpr LimitField kLimitFields[] = {
    {"header_bytes", &Limits::header_bytes, 1LL << 40},
    {"nesting", &Limits::nesting, 200},
    {"json_values", &Limits::json_values, 1LL << 40},
    {"name_bytes", &Limits::name_bytes, 1 << 20},
    {"nodes", &Limits::nodes, 100'000'000},
    {"inputs", &Limits::inputs, 1 << 20},
    {"outputs", &Limits::outputs, 1 << 20},
    {"rank", &Limits::rank, 32},
    {"dimension", &Limits::dimension, 1LL << 31},
    {"window", &Limits::window, 1 << 20},
    {"constant_bytes", &Limits::constant_bytes, 1LL << 40},
    {"computed_bytes", &Limits::computed_bytes, 1LL << 40},
    {"sharing", &Limits::sharing, 1 << 20},
    {"packing", &Limits::packing, 1 << 20},
    {"packed_bytes", &Limits::packed_bytes, 1LL << 40},
    {"value_elements", &Limits::value_elements, 1LL << 40},
};

/// Throws `Type` where `found` exceeds the limit, which the message names.
template <typename Type = ModelError, typename Found, typename... Where>
void check_limit(const Limits& limits, std::int64_t Limits::* limit, Found found,
                 const Where&... where) {
  if (std::cmp_less_equal(found, limits.*limit)) return;
  const char* name = "";
  for (const LimitField& field : kLimitFields) {
    if (field.member == limit) name = field.name;
  }
  throw Type(concat(where..., ": ", found, " exceeds the limit ", name, " = ", limits.*limit,
                    "; raise limits.", name, " if the file can be trusted"));
}

}  // namespace qpp
