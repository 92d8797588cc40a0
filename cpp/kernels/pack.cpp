// SPDX-License-Identifier: Apache-2.0
#include "kernels/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"

namespace qpp {
namespace {

float largest_magnitude(const float* values, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

void write(std::byte* data, std::int64_t index, DType dtype, float value) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(data + index * 4, &value, 4);
      break;
    case DType::f16: {
      const half narrow = to_half(value);
      std::memcpy(data + index * 2, &narrow, 2);
      break;
    }
    case DType::qai8:
    case DType::qsi8:
      data[index] = static_cast<std::byte>(static_cast<std::int8_t>(value));
      break;
    case DType::qai16:  // no type of weights
      break;
  }
}

}  // namespace

bool has_unit_scales(const PackedWeights& weights) {
  return std::all_of(weights.scales.begin(), weights.scales.end(),
                     [](float scale) { return scale == 1; });
}

float half_scale(float largest) {
  constexpr int kMinExponent = -9;  // exponents that need no scale
  constexpr int kMaxExponent = 14;
  constexpr int kTiny = -7;  // the exponent after scaling
  if (!(largest > 0)) return 1;
  const int exponent = std::ilogb(largest);
  if (exponent < kMinExponent) return std::ldexp(1.0F, exponent - kTiny);
  return exponent > kMaxExponent ? std::ldexp(1.0F, exponent - kMaxExponent) : 1;
}

PackedWeights pack_conv_weights(const float* weights, std::int64_t filters, std::int64_t channels,
                                std::int64_t taps, DType dtype, int nr, int kr, bool scaled,
                                std::span<const float> scales) {
  PackedWeights packed;
  packed.dtype = dtype;
  packed.filters = filters;
  packed.taps = taps;
  packed.channels = round_up<std::int64_t>(channels, kr);
  const std::int64_t padded_filters = round_up<std::int64_t>(filters, nr);
  packed.data.resize(static_cast<std::size_t>(padded_filters * taps * packed.channels) *
                     size_of(dtype));
  // Filters of zeros take the scale of another filter.
  const float most = largest_magnitude(weights, filters * channels * taps);
  const bool quantized = dtype == DType::qsi8;
  const float zeros_scale = quantized && most > 0 ? most / 127.0F : 1.0F;
  packed.scales.assign(static_cast<std::size_t>(padded_filters), zeros_scale);
  packed.sums.assign(static_cast<std::size_t>(padded_filters), 0);
  packed.magnitudes.assign(static_cast<std::size_t>(padded_filters), 0);

  bool magic_bias_possible = quantized;
  for (std::int64_t f = 0; f < filters; ++f) {
    const float* filter = weights + f * channels * taps;
    const float largest = largest_magnitude(filter, channels * taps);
    float scale = quantized && largest > 0 ? largest / 127.0F : zeros_scale;
    if (quantized && !scales.empty()) scale = scales[static_cast<std::size_t>(f)];
    const bool in_units = scaled && dtype == DType::f16;
    if (in_units) scale = half_scale(largest);
    std::int32_t sum = 0;
    std::int32_t magnitude = 0;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      // Counted on rather than divided: a network has millions of weights.
      std::int64_t index = ((f / nr * taps + tap) * packed.channels * nr) + f % nr * kr;
      std::int64_t lane = 0;
      for (std::int64_t c = 0; c < channels; ++c) {
        float value = filter[c * taps + tap];
        if (quantized) {
          value = quantize_weight(value, scale);
          sum += static_cast<std::int32_t>(value);
          magnitude += static_cast<std::int32_t>(std::abs(value));
        } else if (in_units) {
          value /= scale;
        }
        write(packed.data.data(), index + lane, dtype, value);
        if (++lane == kr) {
          lane = 0;
          index += static_cast<std::int64_t>(nr) * kr;
        }
      }
    }
    packed.scales[static_cast<std::size_t>(f)] = scale;
    packed.sums[static_cast<std::size_t>(f)] = sum;
    packed.magnitudes[static_cast<std::size_t>(f)] = magnitude;
    if (magnitude > kMaxMagicBiasMagnitude) magic_bias_possible = false;
  }
  if (!magic_bias_possible) packed.magnitudes.clear();
  return packed;
}

}  // namespace qpp
