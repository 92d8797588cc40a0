// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "base/align.h"
#include "tensor/dtype.h"

namespace qpp {

/// Convolution weights in the order in which kernels read them:
///
///   element (f, tap, c) at [f / nr][tap][c / kr][f % nr][c % kr]
///
/// with tap = ky * kernel_width + kx. Filters are padded with zeros to a multiple of nr, channels
/// to one of kr. `weights` are canonical floats OIHW. f32 keeps them, and so does f16, in units of
/// half_scale() of each filter; qsi8 quantizes each filter with its scale, by default max|w| / 127,
/// within kMaxMagnitude.
struct PackedWeights {
  DType dtype = DType::f32;
  std::int64_t filters = 0;  // as given
  std::int64_t taps = 0;
  std::int64_t channels = 0;  // rounded up to kr
  AlignedVector<std::byte> data;
  AlignedVector<float> scales;  // [filters, padded to nr]; of qsi8 filters of zeros have the
                                // largest of the others
  AlignedVector<std::int32_t>
      sums;  // [filters, padded to nr]; qsi8 only: sum of the quantized weights
  AlignedVector<std::int32_t> magnitudes;  // the same, of their magnitudes; empty where
                                           // magic_bias.h does not apply
};

/// Whether all weights are in units of 1.
bool has_unit_scales(const PackedWeights& weights);

/// The unit in which fp16 holds the weights of a filter, up to `largest`, to full precision: 1 but
/// for filters of tiny or huge weights, else a power of two. Tiny ones become no larger than 2^-6,
/// so that products with 32 of the largest halves add up to a half.
float half_scale(float largest);

/// A weight in steps of its filter's scale.
inline float quantize_weight(float weight, float scale) {
  return std::clamp(std::nearbyint(weight / scale), -127.0F, 127.0F);
}

/// The maximum sum of the magnitudes of a filter's int8 weights. Sums of products with levels minus
/// their zero point, and a sparse part of up to 2^20 (kernels/conv.h), then fit 32 bits.
inline constexpr std::int64_t kMaxMagnitude = (INT32_MAX - (1 << 20)) / 256;

/// The same for magic_bias.h: 255 times it, half of the range of sums of products, is far below the
/// limits of accumulators.
inline constexpr std::int32_t kMaxMagicBiasMagnitude = (1 << 29) / 255;

/// `scaled`: false for f16 weights that are to be kept as they are. `scales`: of qsi8 filters;
/// empty for the default.
PackedWeights pack_conv_weights(const float* weights, std::int64_t filters, std::int64_t channels,
                                std::int64_t taps, DType dtype, int nr, int kr, bool scaled = true,
                                std::span<const float> scales = {});

}  // namespace qpp
