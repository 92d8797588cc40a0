// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/align.h"
#include "tensor/dtype.h"

namespace qpp {

/// Convolution weights in the order in which kernels read them:
///
///   element (f, tap, c) at [f / nr][tap][c / kr][f % nr][c % kr]
///
/// with tap = ky * kernel_width + kx. Filters are padded with zeros to a multiple of nr, channels
/// to one of kr. `weights` are canonical floats OIHW. f16 and f32 keep them; qsi8 quantizes each
/// filter with scale max|w| / 127.
struct PackedWeights {
  DType dtype = DType::f32;
  std::int64_t filters = 0;  // as given
  std::int64_t taps = 0;
  std::int64_t channels = 0;  // rounded up to kr
  AlignedVector<std::byte> data;
  AlignedVector<float> scales;  // [filters, padded to nr]; qsi8 only, else ones; filters of zeros
                                // have the largest of the others
  AlignedVector<std::int32_t>
      sums;  // [filters, padded to nr]; qsi8 only: sum of the quantized weights
  AlignedVector<std::int32_t> magnitudes;  // the same, of their magnitudes; empty where
                                           // float_sums.h does not serve
};

/// 255 of it, half of what sums of products range over, stay far below where accumulators end.
inline constexpr std::int32_t kLargestMagnitude = (1 << 29) / 255;

PackedWeights pack_conv_weights(const float* weights, std::int64_t filters, std::int64_t channels,
                                std::int64_t taps, DType dtype, int nr, int kr);

}  // namespace qpp
