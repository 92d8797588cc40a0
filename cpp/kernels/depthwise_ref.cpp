// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr std::int64_t kBlock = 8;

void write(std::byte* data, std::int64_t index, DType dtype, float value) {
  if (dtype == DType::qsi8) {
    data[index] = static_cast<std::byte>(static_cast<std::int8_t>(value));
  } else if (dtype == DType::f16) {
    reinterpret_cast<half*>(data)[index] = to_half(value);
  } else {
    std::memcpy(data + 4 * index, &value, 4);
  }
}

/// Stores what the output stage makes of sum(pixel, channel).
template <typename Dst, typename Sum>
void convolve(const DepthwiseArgs& args, const Sum& sum) {
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      const float level = output_level(*args.output, sum(p, c), c);
      store(*args.output, level, static_cast<Dst*>(args.dst) + p * args.channels + c);
    }
  }
}

template <typename Dst>
void convolve_int8(const DepthwiseArgs& args) {
  convolve<Dst>(args, [&](std::int64_t p, std::int64_t c) {
    const auto* weights =
        static_cast<const std::int8_t*>(args.weights) + c / kBlock * 96 + c % kBlock * 4;
    std::int32_t sum = args.output->correction[c];
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      const auto* row = static_cast<const std::int8_t*>(args.rows[ky]) + c;
      for (std::int64_t kx = 0; kx < 3; ++kx)
        sum += row[(p * args.stride + kx) * args.channels] * weights[kx * 32 + ky];
    }
    return static_cast<float>(sum);
  });
}

}  // namespace

PackedWeights pack_depthwise_weights(const float* weights, std::int64_t channels, DType dtype) {
  const std::int64_t padded = round_up(channels, kBlock);
  const bool quantized = dtype == DType::qsi8;
  PackedWeights packed;
  packed.dtype = dtype;
  packed.filters = channels;
  packed.taps = 9;
  packed.channels = 1;
  packed.data.resize(static_cast<std::size_t>(padded * (quantized ? 12 : 9)) * size_of(dtype));
  packed.scales.assign(static_cast<std::size_t>(padded), 1.0F);
  packed.sums.assign(static_cast<std::size_t>(padded), 0);
  for (std::int64_t c = 0; c < channels; ++c) {
    const float* kernel = weights + c * 9;
    float largest = 0;
    for (std::int64_t tap = 0; tap < 9; ++tap) largest = std::max(largest, std::abs(kernel[tap]));
    const float scale = quantized && largest > 0 ? largest / 127.0F : 1.0F;
    std::int32_t sum = 0;
    for (std::int64_t tap = 0; tap < 9; ++tap) {
      float value = kernel[tap];
      std::int64_t index = (c / kBlock * 9 + tap) * kBlock + c % kBlock;
      if (quantized) {
        value = std::clamp(std::nearbyint(value / scale), -127.0F, 127.0F);
        sum += static_cast<std::int32_t>(value);
        index = ((c / kBlock * 3 + tap % 3) * kBlock + c % kBlock) * 4 + tap / 3;
      }
      write(packed.data.data(), index, dtype, value);
    }
    packed.scales[static_cast<std::size_t>(c)] = scale;
    packed.sums[static_cast<std::size_t>(c)] = sum;
  }
  return packed;
}

void depthwise3x3_qai8_qai8_qsi8cx_ref(const DepthwiseArgs& args) {
  convolve_int8<std::int8_t>(args);
}

void depthwise3x3_f16_qai8_qsi8cx_ref(const DepthwiseArgs& args) { convolve_int8<half>(args); }

void depthwise3x3_f16_f16_f32_ref(const DepthwiseArgs& args) {
  convolve<half>(args, [&](std::int64_t p, std::int64_t c) {
    const auto* weights = static_cast<const float*>(args.weights) + c / kBlock * 72 + c % kBlock;
    float sum = 0;
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      const auto* row = static_cast<const half*>(args.rows[ky]) + c;
      for (std::int64_t kx = 0; kx < 3; ++kx) {
        sum +=
            to_float(row[(p * args.stride + kx) * args.channels]) * weights[(ky * 3 + kx) * kBlock];
      }
    }
    return sum;
  });
}

}  // namespace qpp
