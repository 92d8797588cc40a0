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
  static std::size_t scratch_bytes(const Conv2d& conv);

  /// `scratch` holds scratch_bytes(), aligned.
  WideTile(const Conv2d& conv, const RunState& state, std::byte* scratch);

  /// Where sums of outliers are to be written, [pixel][filter].
  [[nodiscard]] float* sums() const { return sums_; }
  /// Computes a tile of `args`, whose sources are those of the general kernel: `sparse` says
  /// whether sums() holds the outliers of the source. Real numbers in fp16, [pixel][filter], until
  /// the next call.
  const half* compute(ConvArgs args, bool sparse);

 private:
  const Conv2d& conv_;
  const RunState& state_;
  std::int32_t* correction_;
  float* multiplier_;
  float* bias_;
  float* sums_;
  half* tile_;
};

}  // namespace qpp
