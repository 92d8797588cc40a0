// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/conv2d.h"

namespace qpp {

/// Tiles of an int8 convolution that its kernels cannot compute, since the sums of outliers are
/// larger than accumulators hold, or levels than int16. The kernel gives the dense part alone, in
/// fp16; the rest is added in fp32. It takes about as long as the tile took before, and is needed
/// where a value is hundreds of times as large as the range of its dense part.
class Conv2d::WideTile {
 public:
  /// Working memory of one thread.
  static std::size_t scratch_bytes(const Conv2d& conv) { return lay_out(conv, nullptr).bytes; }

  /// `scratch` holds scratch_bytes(), aligned.
  WideTile(const Conv2d& conv, const RunState& state, std::byte* scratch)
      : conv_(conv), state_(state), scratch_(lay_out(conv, scratch)) {}

  /// Where sums of outliers are to be written, [pixel][filter].
  [[nodiscard]] float* sums() const { return scratch_.sums; }
  /// Computes a tile of `args`, whose sources are those of the general kernel: `sparse` says
  /// whether sums() holds the outliers of the source. Real numbers in fp16, [pixel][filter], until
  /// the next call.
  const half* compute(ConvArgs args, bool sparse);

 private:
  struct Scratch {
    std::int32_t* correction;  // [filters, padded to nr]
    float* multiplier;         // the same
    float* bias;               // the same
    float* sums;               // [pixel][filter]
    half* tile;                // the same
    std::size_t bytes;
  };
  static Scratch lay_out(const Conv2d& conv, std::byte* base);

  const Conv2d& conv_;
  const RunState& state_;
  Scratch scratch_;
};

}  // namespace qpp
