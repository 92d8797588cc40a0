// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/limits.h"

namespace qpp {

/// How to handle the items of a document: its values at one depth. The root has depth 0, its
/// members 1, their members 2.
struct JsonItems {
  std::size_t depth = 1;
  /// Takes an item and the key of the root's member that it is or belongs to. Items for which it
  /// returns false are not kept, so that a long list costs no memory.
  std::function<bool(const std::string& member, nlohmann::json& item)> keep;
  bool long_strings = false;  // whether values may be longer than Limits::name_bytes
};

/// Parses a JSON object within limits: nesting, length of names, and number of values of an item
/// and of all that is kept. Refuses keys that occur twice in an object; in a root whose members are
/// the items, that is up to `keep`. Throws ModelError; `where` names the text.
nlohmann::json parse_json(std::string_view text, const std::string& where, const Limits& limits,
                          const JsonItems& items);

/// A text, and a JSON value, as messages show them: never more than a few words.
std::string quote(std::string_view text);
std::string describe(const nlohmann::json& value);

}  // namespace qpp
