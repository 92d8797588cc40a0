// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "kernels/neon/vectors.h"
#include "kernels/output_stage.h"

namespace qpp {

/// The range of vectors, lane by lane. FMIN and FMAX keep NaN.
class HalfRange {
 public:
  /// Of no vector.
  QPP_NEON_INLINE HalfRange()
      : lo_(vdupq_n_f16(static_cast<float16_t>(INFINITY))),
        hi_(vdupq_n_f16(static_cast<float16_t>(-INFINITY))) {}
  QPP_NEON_INLINE explicit HalfRange(float16x8_t first) : lo_(first), hi_(first) {}

  QPP_NEON_INLINE void extend(float16x8_t value) {
    lo_ = vminq_f16(lo_, value);
    hi_ = vmaxq_f16(hi_, value);
  }
  QPP_NEON_INLINE void extend(const HalfRange& other) {
    lo_ = vminq_f16(lo_, other.lo_);
    hi_ = vmaxq_f16(hi_, other.hi_);
  }
  /// Over all lanes.
  [[nodiscard]] QPP_NEON_INLINE Range reduce() const {
    return {.lo = static_cast<float>(vminvq_f16(lo_)), .hi = static_cast<float>(vmaxvq_f16(hi_))};
  }

 private:
  float16x8_t lo_;
  float16x8_t hi_;
};

}  // namespace qpp
