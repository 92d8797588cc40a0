// SPDX-License-Identifier: Apache-2.0
#include "tensor/layout.h"

#include "base/check.h"

namespace qpp {

std::string to_string(const Shape& shape) {
  return concat("[", shape.batch, ", ", shape.channels, ", ", shape.height, ", ", shape.width, "]");
}

}  // namespace qpp
