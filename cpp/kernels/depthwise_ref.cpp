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

/// Where pack_depthwise_weights() puts an element.
std::int64_t index_of(std::int64_t c, std::int64_t ky, std::int64_t kx, std::int64_t height,
                      std::int64_t width, DType dtype) {
  if (dtype != DType::qsi8) return ((c / kBlock * height + ky) * width + kx) * kBlock + c % kBlock;
  const std::int64_t quads = round_up(height, kDepthwiseQuad) / kDepthwiseQuad;
  const std::int64_t column = (c / kBlock * quads + ky / kDepthwiseQuad) * width + kx;
  return (column * kBlock + c % kBlock) * kDepthwiseQuad + ky % kDepthwiseQuad;
}

/// Applies the output stage to start(c) plus the sum of all products, and stores the result.
template <typename Dst, typename Src, typename Weight, typename Sum, typename Start, typename Value>
void convolve(const DepthwiseArgs& args, DType dtype, const Start& start, const Value& value) {
  const auto* weights = static_cast<const Weight*>(args.weights);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      Sum sum = start(c);
      for (std::int64_t ky = 0; ky < args.kernel_height; ++ky) {
        for (std::int64_t kx = 0; kx < args.kernel_width; ++kx) {
          const std::int64_t x = p * args.stride + kx * args.dilation - args.left;
          const Src* pixel = x >= 0 && x < args.width
                                 ? static_cast<const Src*>(args.rows[ky]) + x * args.channels
                                 : static_cast<const Src*>(args.padding);
          sum += value(pixel[c]) *
                 weights[index_of(c, ky, kx, args.kernel_height, args.kernel_width, dtype)];
        }
      }
      const float level = output_level(*args.output, static_cast<float>(sum), c);
      store(*args.output, level, static_cast<Dst*>(args.dst) + p * args.channels + c);
    }
  }
}

template <typename Dst>
void convolve_int8(const DepthwiseArgs& args) {
  convolve<Dst, std::int8_t, std::int8_t, std::int32_t>(
      args, DType::qsi8, [&](std::int64_t c) { return args.output->correction[c]; },
      [](std::int8_t value) { return std::int32_t{value}; });
}

}  // namespace

PackedWeights pack_depthwise_weights(const float* weights, std::int64_t channels,
                                     std::int64_t height, std::int64_t width, DType dtype,
                                     std::span<const float> scales) {
  const std::int64_t padded = round_up(channels, kBlock);
  const bool quantized = dtype == DType::qsi8;
  const std::int64_t rows = quantized ? round_up(height, kDepthwiseQuad) : height;
  const std::int64_t taps = height * width;
  PackedWeights packed;
  packed.dtype = dtype;
  packed.filters = channels;
  packed.taps = taps;
  packed.channels = 1;
  packed.data.resize(static_cast<std::size_t>(padded * rows * width) * size_of(dtype));
  packed.scales.assign(static_cast<std::size_t>(padded), 1.0F);
  packed.sums.assign(static_cast<std::size_t>(padded), 0);
  for (std::int64_t c = 0; c < channels; ++c) {
    const float* kernel = weights + c * taps;
    float largest = 0;
    for (std::int64_t tap = 0; tap < taps; ++tap)
      largest = std::max(largest, std::abs(kernel[tap]));
    float scale = quantized && largest > 0 ? largest / 127.0F : 1.0F;
    if (quantized && !scales.empty()) scale = scales[static_cast<std::size_t>(c)];
    if (dtype == DType::f16) scale = half_scale(largest);
    std::int32_t sum = 0;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      float value = kernel[tap];
      if (quantized) {
        value = quantize_weight(value, scale);
        sum += static_cast<std::int32_t>(value);
      } else {
        value /= scale;
      }
      const std::int64_t index = index_of(c, tap / width, tap % width, height, width, dtype);
      write(packed.data.data(), index, dtype, value);
    }
    packed.scales[static_cast<std::size_t>(c)] = scale;
    packed.sums[static_cast<std::size_t>(c)] = sum;
  }
  return packed;
}

void depthwise_qai8_qai8_qsi8cx_ref(const DepthwiseArgs& args) { convolve_int8<std::int8_t>(args); }

void depthwise_f16_qai8_qsi8cx_ref(const DepthwiseArgs& args) { convolve_int8<half>(args); }

void depthwise_f16_f16_f32_ref(const DepthwiseArgs& args) {
  convolve<half, half, float, float>(
      args, DType::f32, [](std::int64_t /*channel*/) { return 0.0F; }, to_float);
}

}  // namespace qpp
