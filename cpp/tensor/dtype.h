// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace qpp {

/// Element types. Names follow the kernels': qai8 is int8 with scale and zero point, qsi8 symmetric
/// int8; qai16 holds the levels of a qai8 before they are clipped to a byte.
enum class DType : std::uint8_t { f32, f16, qai8, qsi8, qai16 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::f16:
    case DType::qai16:
      return 2;
    case DType::qai8:
    case DType::qsi8:
      return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::qai8:
      return "qai8";
    case DType::qsi8:
      return "qsi8";
    case DType::qai16:
      return "qai16";
  }
  return "?";
}

}  // namespace qpp
