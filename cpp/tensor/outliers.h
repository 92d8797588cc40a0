// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>

#include "base/align.h"
#include "base/half.h"
#include "base/memory_layout.h"

namespace qpp {

// A dense + sparse (D+S) value is an int8 tensor plus its outliers: for every element whose level
// is outside of [qmin, qmax], the residual beyond the bound. The value of an element is
//
//   (q - zero_point + residual * kStepsPerResidual) * scale,  residual = 0 for all but the outliers
//
// Residuals are whole steps, stored as halves in a unit that gives them the range kMaxResidual: the
// range of fp16 if the scale is at least 2.5e-4, else four million times the range of the dense
// part. Up to 2048 steps are exact.
//
// Outliers are listed row by row (a row of an image; rows in the order of images), within a row in
// the order of pixels and channels. Each row has the capacity for a quarter of its elements, at a
// density of 1 % twenty-five times the expected number. Outliers beyond the capacity are clipped,
// as without a sparse part, and counted. The size of the memory is therefore known in advance, and
// the stored outliers do not depend on the assignment of rows to threads.

/// The share of a value's elements beyond either bound, at most: outliers are few.
inline constexpr double kMaxDensity = 0.1;

/// The unit of residuals, and their largest magnitude, in steps of the value's scale.
inline constexpr std::int32_t kStepsPerResidual = 4096;
inline constexpr std::int32_t kMaxResidual = 65504 * kStepsPerResidual;

/// A residual, as it is stored, of so many steps; and back.
[[gnu::always_inline]] inline half residual_of_steps(std::int32_t steps) {
  return to_half(static_cast<float>(steps) * (1.0F / kStepsPerResidual));
}
inline std::int32_t steps_of_residual(half residual) {
  return static_cast<std::int32_t>(to_float(residual) * kStepsPerResidual);
}

/// Entries after those of a row that may be read and written: kernels copy several at a time.
inline constexpr std::int64_t kOutlierSlack = 8;

/// The outliers of one row.
struct OutlierRow {
  std::uint32_t* begins = nullptr;  // [width + 1]: pixel x has entries begins[x] .. begins[x + 1]
  std::uint32_t* positions = nullptr;  // [capacity]: x * channels + c, channels padded
  half* residuals = nullptr;           // [capacity], in units of kStepsPerResidual
  std::int64_t capacity = 0;
  std::uint32_t* dropped = nullptr;  // one number: outliers that were clipped
};

/// The outliers of a tensor, in one block of memory; or none.
class Outliers {
 public:
  Outliers() = default;
  /// `memory` holds bytes(rows, width, channels) bytes, aligned to kAlignment; `channels` are
  /// padded.
  Outliers(std::byte* memory, std::int64_t rows, std::int64_t width, std::int64_t channels) {
    lay_out(memory, rows, width, channels);
  }

  static std::size_t bytes(std::int64_t rows, std::int64_t width, std::int64_t channels) {
    return Outliers().lay_out(nullptr, rows, width, channels);
  }

  [[nodiscard]] bool present() const { return begins_ != nullptr; }
  [[nodiscard]] OutlierRow row(std::int64_t i) const {
    return {.begins = begins_ + i * (width_ + 1),
            .positions = positions_ + i * capacity_,
            .residuals = residuals_ + i * capacity_,
            .capacity = capacity_,
            .dropped = dropped_ + i};
  }
  /// Outliers of all rows that exceeded the capacity or the range of residuals.
  [[nodiscard]] std::int64_t dropped() const {
    return std::accumulate(dropped_, dropped_ + rows_, std::int64_t{0});
  }

 private:
  /// Returns the size of the memory.
  std::size_t lay_out(std::byte* memory, std::int64_t rows, std::int64_t width,
                      std::int64_t channels) {
    rows_ = rows;
    width_ = width;
    capacity_ = round_up<std::int64_t>(width * channels / 4, 8);
    MemoryLayout layout(memory);
    layout.add(begins_, rows * (width + 1));
    layout.add(dropped_, rows);
    layout.add(positions_, rows * capacity_ + kOutlierSlack);
    layout.add(residuals_, rows * capacity_ + kOutlierSlack);
    return layout.bytes();
  }

  std::uint32_t* begins_ = nullptr;
  std::uint32_t* dropped_ = nullptr;
  std::uint32_t* positions_ = nullptr;
  half* residuals_ = nullptr;
  std::int64_t rows_ = 0;
  std::int64_t width_ = 0;
  std::int64_t capacity_ = 0;
};

}  // namespace qpp
