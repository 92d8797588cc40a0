// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/check.h"
#include "tensor/dtype.h"
#include "tensor/layout.h"
#include "tensor/outliers.h"

namespace qpp {

/// An activation in memory that it does not own.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f16;
  Shape shape;
  /// Present in a dense + sparse value, which is int8. GCC warns without the initializer.
  Outliers outliers = {};  // NOLINT(readability-redundant-member-init)

  template <typename T>
  [[nodiscard]] T* as() const {
    QPP_ASSUME(sizeof(T) == size_of(dtype));
    return static_cast<T*>(data);
  }
};

/// Bytes of the outliers of an activation.
inline std::size_t outlier_bytes(const Shape& shape) {
  return Outliers::bytes(shape.batch * shape.height, shape.width, shape.stride());
}

/// The outliers of an activation in `memory`, which holds outlier_bytes(), aligned to kAlignment.
inline Outliers outliers_of(const Shape& shape, std::byte* memory) {
  return {memory, shape.batch * shape.height, shape.width, shape.stride()};
}

}  // namespace qpp
