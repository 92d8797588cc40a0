// SPDX-License-Identifier: Apache-2.0
#include "ops/geometry.h"

#include <vector>

#include "base/json_field.h"

namespace qpp {

Size2d parse_size(const Field& field, const Limits& limits) {
  const std::vector<Field> sizes = field.list(2);
  return {.height = sizes[0].integer(1, limits.window),
          .width = sizes[1].integer(1, limits.window)};
}

Padding parse_padding(const Field& field, const Limits& limits) {
  std::vector<std::int64_t> sides;
  for (const Field& side : field.list()) sides.push_back(side.integer(0, limits.window));
  QPP_CHECK(sides.size() == 2 || sides.size() == 4, ModelError, field.where(),
            ": expected 2 or 4 items, got ", sides.size());
  if (sides.size() == 2) return {.height = sides[0], .width = sides[1]};
  return padding_of(sides);
}

Padding padding_of(std::span<const std::int64_t> sides) {
  return {.height = sides[0],
          .width = sides[1],
          .more_below = sides[2] - sides[0],
          .more_right = sides[3] - sides[1]};
}

}  // namespace qpp
