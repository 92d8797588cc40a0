// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "base/check.h"

namespace qpp {

/// "a, b, c": for every item the result of `text`, a function or a pointer to a member.
template <typename List, typename Text = std::identity>
std::string join(const List& items, const Text& text = {}) {
  std::string result;
  for (const auto& item : items)
    result += concat(result.empty() ? "" : ", ", std::invoke(text, item));
  return result;
}

}  // namespace qpp
