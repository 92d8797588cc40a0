// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "kernels/families.h"

namespace qpp {

/// The type of a family's functions.
namespace function_type {
// NOLINTBEGIN(bugprone-macro-parentheses): a type may have none
#define QPP_FAMILY(name, Row) using name = std::remove_pointer_t<decltype(Row::function)>;
// NOLINTEND(bugprone-macro-parentheses)
#include "kernels/families.inc"
}  // namespace function_type

// Declares every kernel of variants.inc.
#define QPP_KERNEL(family, name, ...) function_type::family name;
#include "kernels/variants.inc"

}  // namespace qpp
