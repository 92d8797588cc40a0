// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace qpp {

/// IEEE 754 binary16 in storage. Arithmetic happens in float; NEON kernels read the same bits as
/// float16_t.
struct half {
  std::uint16_t bits = 0;
};
static_assert(sizeof(half) == 2);

inline float to_float(half h) {
#if defined(__aarch64__)
  return static_cast<float>(std::bit_cast<__fp16>(h.bits));
#else
  // The exponent is rebiased by a multiplication, which also normalizes subnormals.
  const std::uint32_t magnitude = (h.bits & 0x7fffU) << 13;
  const float finite = std::bit_cast<float>(magnitude) * 0x1p112F;
  const bool special = (h.bits & 0x7c00U) == 0x7c00U;
  const std::uint32_t value =
      special ? magnitude | 0x7f800000U : std::bit_cast<std::uint32_t>(finite);
  return std::bit_cast<float>(value | (static_cast<std::uint32_t>(h.bits & 0x8000U) << 16));
#endif
}

/// Rounds half to even; values from 65520 on become infinity.
inline half to_half(float value) {
#if defined(__aarch64__)
  return half{std::bit_cast<std::uint16_t>(static_cast<__fp16>(value))};
#else
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  // Subnormal results: adding 0.5 leaves the rounded value in units of 2^-24 in the low bits.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  const std::uint32_t normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  std::uint32_t result = magnitude < 0x38800000U ? subnormal : normal;
  result = magnitude >= 0x477ff000U ? 0x7c00U : result;
  result = magnitude > 0x7f800000U ? 0x7e00U : result;
  return half{static_cast<std::uint16_t>(result | ((bits >> 16) & 0x8000U))};
#endif
}

}  // namespace qpp
