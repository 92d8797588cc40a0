// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "kernels/kernels.h"
#include "tensor/outliers.h"

namespace qpp {

/// Splits successive pixels of a row into their dense and their sparse part (tensor/outliers.h):
///
///   level = src                                                            from qai16
///   level = round_half_even(clamp(src * inverse_scale)) + zero_point       from f16, as quantize.h
///   x = min(max(level, lo), hi)
///   dst = min(max(x, qmin), qmax)
///
/// and appends x - dst, where it is not zero, to the row; the entry after the last may be written,
/// too. Calls for a row go from left to right: the one for pixel 0 begins the list. A call for
/// pixels that have entries already replaces these, and all that follow.
///
/// Returns the number of saturated elements, whose level is at or beyond `saturation_lo` or
/// `saturation_hi`: the source, or x, may be clipped there.
struct SparsifyArgs {
  const void* src = nullptr;   // [pixels][channels], int16 or half
  std::int8_t* dst = nullptr;  // the same
  std::int64_t pixels = 0;
  std::int64_t channels = 0;  // padded, a multiple of 8
  std::int32_t lo = 0;        // bounds of the levels, zero point included; no further from qmin and
  std::int32_t hi = 0;        // qmax than kMaxResidual
  std::int32_t saturation_lo = INT32_MIN;  // below qmin
  std::int32_t saturation_hi = INT32_MAX;  // above qmax
  std::int32_t qmin = -128;
  std::int32_t qmax = 127;
  float inverse_scale = 1;  // of f16
  std::int32_t zero_point = 0;
  OutlierRow row;
  std::int64_t x = 0;  // place of the first pixel in the row
};
using SparsifyKernel = Kernel<SparsifyArgs, std::uint32_t>;

/// Joins both parts of successive pixels of a row, in fp16:
///
///   dst = half((src - zero_point + residual * kStepsPerResidual) / steps_per_unit)
///
/// which fits a half. By default the unit is the one in which Winograd's transform reads int8
/// sources.
inline constexpr float kDensifyStepsPerUnit = 16;

struct DensifyArgs {
  const std::int8_t* src = nullptr;  // [pixels][channels]
  half* dst = nullptr;               // the same
  std::int64_t pixels = 0;
  std::int64_t channels = 0;  // padded, a multiple of 8
  std::int32_t zero_point = 0;
  OutlierRow row;
  std::int64_t x = 0;                           // place of the first pixel in the row
  float steps_per_unit = kDensifyStepsPerUnit;  // a power of two; others may take longer
};
using DensifyKernel = Kernel<DensifyArgs>;

// The helpers are inlined by force, since files for several instruction sets share them.

/// Appends to a row, in the order of pixels and channels. Outliers that exceed the capacity are
/// counted.
class OutlierAppender {
 public:
  [[gnu::always_inline]] OutlierAppender(const OutlierRow& row, std::int64_t x) : row_(row) {
    if (x == 0) row.begins[0] = *row.dropped = 0;
    count_ = row.begins[x];
  }
  /// `residual` is in steps.
  [[gnu::always_inline]] void append(std::int64_t position, std::int32_t residual) {
    append_if(true, position, residual);
  }
  /// The same if there is such an element, without a branch, which would be unpredictable.
  [[gnu::always_inline]] void append_if(bool found, std::int64_t position, std::int32_t residual) {
    const std::uint32_t added =
        static_cast<std::uint32_t>(found) & static_cast<std::uint32_t>(residual != 0);
    if (count_ == row_.capacity) [[unlikely]] {
      *row_.dropped += added;
      return;
    }
    row_.positions[count_] = static_cast<std::uint32_t>(position);
    row_.residuals[count_] = residual_of_steps(residual);
    count_ += added;
  }
  [[gnu::always_inline]] void end_pixel(std::int64_t x) const { row_.begins[x + 1] = count_; }

 private:
  OutlierRow row_;
  std::uint32_t count_ = 0;
};

/// 1 if the level x is saturated, else 0.
[[gnu::always_inline]] inline std::uint32_t is_saturated(const SparsifyArgs& args,
                                                         std::int32_t level) {
  // One comparison for both sides: levels below wrap around.
  const auto lo = static_cast<std::uint32_t>(args.saturation_lo) + 1;
  const auto hi = static_cast<std::uint32_t>(args.saturation_hi);
  return static_cast<std::uint32_t>(static_cast<std::uint32_t>(level) - lo >= hi - lo);
}

/// The level x of a source.
[[gnu::always_inline]] inline std::int32_t sparsify_level(const SparsifyArgs& args, half src) {
  const auto lo = static_cast<float>(args.lo - args.zero_point);
  const auto hi = static_cast<float>(args.hi - args.zero_point);
  float level = to_float(src) * args.inverse_scale;
  level = level < hi ? level : hi;  // NaN becomes hi
  level = level > lo ? level : lo;
  return static_cast<std::int32_t>(std::nearbyint(level)) + args.zero_point;
}
[[gnu::always_inline]] inline std::int32_t sparsify_level(const SparsifyArgs& args,
                                                          std::int16_t src) {
  return std::min(std::max<std::int32_t>(src, args.lo), args.hi);
}

}  // namespace qpp
