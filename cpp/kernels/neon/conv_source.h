// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/conv.h"
#include "kernels/neon/vectors.h"

namespace qpp {

// The sources of a tile. To a kernel, a source is a sequence of runs; in each run it
// reads channels() successive elements of every pixel, and the weights in step with them:
//
//   for (Source source(args); source.valid(); source.next()) ...

/// Family conv: one run per tap, each pixel found by a pointer.
template <typename T, int kPixels>
class PointerSource {
 public:
  QPP_NEON_INLINE explicit PointerSource(const ConvArgs& args)
      : pointers_(args.pixels), runs_(args.taps), channels_(args.channels) {}

  [[nodiscard]] QPP_NEON_INLINE bool valid() const { return runs_ > 0; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t channels() const { return channels_; }
  [[nodiscard]] QPP_NEON_INLINE const T* pixel(int p) const {
    return static_cast<const T*>(pointers_[p]);
  }
  QPP_NEON_INLINE void next() {
    pointers_ += kPixels;
    --runs_;
  }

 private:
  const void* const* pointers_;
  std::int64_t runs_;
  std::int64_t channels_;
};

/// Family conv3x3s1: affine addresses. If pixels are contiguous, the three taps of a kernel
/// row are one run of 3 * channels elements.
template <typename T, int kPixels>
class Interior3x3Source {
 public:
  QPP_NEON_INLINE explicit Interior3x3Source(const ConvArgs& args)
      : src_(static_cast<const T*>(args.src)), pixel_stride_(args.src_pixel_stride) {
    const int taps_per_run = args.src_pixel_stride == args.channels ? 3 : 1;
    channels_ = args.channels * taps_per_run;
    runs_per_row_ = 3 / taps_per_run;
    runs_in_row_ = runs_per_row_;
    next_row_ = args.src_row_stride - (runs_per_row_ - 1) * args.src_pixel_stride;
  }

  [[nodiscard]] QPP_NEON_INLINE bool valid() const { return rows_ > 0; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t channels() const { return channels_; }
  [[nodiscard]] QPP_NEON_INLINE const T* pixel(int p) const { return src_ + p * pixel_stride_; }
  QPP_NEON_INLINE void next() {
    if (--runs_in_row_ > 0) {
      src_ += pixel_stride_;
      return;
    }
    src_ += next_row_;
    runs_in_row_ = runs_per_row_;
    --rows_;
  }

 private:
  const T* src_;
  std::int64_t pixel_stride_;
  std::int64_t channels_;
  std::int64_t next_row_;
  int runs_per_row_;
  int runs_in_row_;
  int rows_ = 3;
};

/// The runs of a tile as a table for all its filters: run r of pixel p is
/// pixels()[r * kPixels + p].
template <int kPixels>
class PointerRuns {
 public:
  QPP_NEON_INLINE explicit PointerRuns(const ConvArgs& args)
      : pixels_(args.pixels), count_(args.taps), channels_(args.channels) {}

  [[nodiscard]] QPP_NEON_INLINE const void* const* pixels() const { return pixels_; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t count() const { return count_; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t channels() const { return channels_; }

 private:
  const void* const* pixels_;
  std::int64_t count_;
  std::int64_t channels_;
};

/// The same for family conv3x3s1.
template <int kPixels>
class Interior3x3Runs {
 public:
  QPP_NEON_INLINE explicit Interior3x3Runs(const ConvArgs& args) {
    Interior3x3Source<std::int8_t, kPixels> source(args);
    channels_ = source.channels();
    for (; source.valid(); source.next()) {
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) pixels_[count_ * kPixels + p] = source.pixel(p);
      ++count_;
    }
  }

  [[nodiscard]] QPP_NEON_INLINE const void* const* pixels() const { return pixels_; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t count() const { return count_; }
  [[nodiscard]] QPP_NEON_INLINE std::int64_t channels() const { return channels_; }

 private:
  const void* pixels_[9 * kPixels];
  std::int64_t count_ = 0;
  std::int64_t channels_;
};

}  // namespace qpp
