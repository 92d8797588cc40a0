// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/check.h"
#include "tensor/dtype.h"
#include "tensor/layout.h"

namespace qpp {

/// An activation in memory that somebody else owns.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f16;
  Shape shape;

  template <typename T>
  [[nodiscard]] T* as() const {
    QPP_ASSUME(sizeof(T) == size_of(dtype));
    return static_cast<T*>(data);
  }
};

}  // namespace qpp
