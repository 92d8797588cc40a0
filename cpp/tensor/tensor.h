// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "base/align.h"
#include "base/half.h"
#include "tensor/dtype.h"

namespace qpp {

/// A constant of the model file in its canonical layout: row-major, convolution weights OIHW.
struct Tensor {
  DType dtype = DType::f32;  // f32, f16 or qsi8
  std::vector<std::int64_t> shape;
  AlignedVector<std::byte> bytes;

  [[nodiscard]] std::int64_t elements() const {
    std::int64_t count = 1;
    for (const std::int64_t size : shape) count *= size;
    return count;
  }
  [[nodiscard]] float at(std::int64_t index) const {
    if (dtype == DType::f32) return reinterpret_cast<const float*>(bytes.data())[index];
    if (dtype == DType::qsi8) return reinterpret_cast<const std::int8_t*>(bytes.data())[index];
    return to_float(reinterpret_cast<const half*>(bytes.data())[index]);
  }
};

}  // namespace qpp
