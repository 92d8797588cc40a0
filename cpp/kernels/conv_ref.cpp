// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <optional>
#include <type_traits>

#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kPixels = 4;
constexpr int kFilters = 16;

float load(half value) { return to_float(value); }
std::int16_t load(std::int8_t value) { return value; }

float accumulate(float sum, float a, float b) { return sum + a * b; }
std::int32_t accumulate(std::int32_t sum, std::int16_t a, std::int8_t b) {
  return sum + a * static_cast<std::int16_t>(b);
}

template <typename Sum>
Sum initial(const ConvArgs& args, std::int64_t pixel, std::int64_t filter) {
  const OutputStage& output = *args.output;
  if (args.sparse != nullptr && pixel < args.pixel_count && filter < args.filters) {
    const half sparse = args.sparse[pixel * args.filters + filter];
    return static_cast<Sum>(initial_sum(output, filter, to_float(sparse)));
  }
  return output.correction == nullptr ? Sum{0} : static_cast<Sum>(output.correction[filter]);
}

template <typename Dst>
void store_sum(const ConvArgs& args, float sum, std::int64_t pixel, std::int64_t filter) {
  const OutputStage& output = *args.output;
  const std::int64_t index = pixel * args.dst_stride + filter;
  std::optional<float> residual;
  if (args.residual != nullptr) residual = residual_at(output.residual, args.residual, index);
  store(output, output_level(output, sum, filter, residual), static_cast<Dst*>(args.dst) + index);
}
template <typename Dst>
void store_sum(const ConvArgs& args, std::int32_t sum, std::int64_t pixel, std::int64_t filter) {
  if (!args.output->magic_bias_accumulators) {
    store_sum<Dst>(args, static_cast<float>(sum), pixel, filter);
    return;
  }
  const std::int64_t index = pixel * args.dst_stride + filter;
  Dst* dst = static_cast<Dst*>(args.dst) + index;
  if constexpr (std::is_same_v<Dst, std::int16_t>) {
    store_magic_bias(*args.output, sum, filter, dst);
  } else {
    store_magic_bias(*args.output, sum, filter, dst, args.residual, index);
  }
}

/// Weights are packed with nr = 16, kr = 1, so that the loop over a block's filters vectorizes.
template <typename Dst, typename Src, typename Weight, typename Sum>
void conv_ref(const ConvArgs& args) {
  for (std::int64_t block = 0; block < args.filters; block += kFilters) {
    std::array<std::array<Sum, kFilters>, kPixels> sums;
    for (int p = 0; p < kPixels; ++p) {
      for (int f = 0; f < kFilters; ++f) sums[p][f] = initial<Sum>(args, p, block + f);
    }
    const auto* weights =
        static_cast<const Weight*>(args.weights) + block * args.taps * args.channels;
    for (std::int64_t tap = 0; tap < args.taps; ++tap) {
      for (std::int64_t c = 0; c < args.channels; ++c) {
        const Weight* row = weights + (tap * args.channels + c) * kFilters;
        for (int p = 0; p < kPixels; ++p) {
          const auto value = load(static_cast<const Src*>(args.pixels[tap * kPixels + p])[c]);
          for (int f = 0; f < kFilters; ++f) sums[p][f] = accumulate(sums[p][f], value, row[f]);
        }
      }
    }
    for (std::int64_t p = 0; p < args.pixel_count; ++p) {
      for (std::int64_t f = block; f < block + kFilters && f < args.filters; ++f) {
        store_sum<Dst>(args, sums[p][f - block], p, f);
      }
    }
  }
}

}  // namespace

void conv_qai8_qai8_qsi8cx_4x16_ref(const ConvArgs& args) {
  conv_ref<std::int8_t, std::int8_t, std::int8_t, std::int32_t>(args);
}
void conv_f16_qai8_qsi8cx_4x16_ref(const ConvArgs& args) {
  conv_ref<half, std::int8_t, std::int8_t, std::int32_t>(args);
}
void conv_qai16_qai8_qsi8cx_4x16_ref(const ConvArgs& args) {
  conv_ref<std::int16_t, std::int8_t, std::int8_t, std::int32_t>(args);
}
void conv_f16_f16_f32_4x16_ref(const ConvArgs& args) { conv_ref<half, half, float, float>(args); }
void conv_qai8_f16_f32_4x16_ref(const ConvArgs& args) {
  conv_ref<std::int8_t, half, float, float>(args);
}

}  // namespace qpp
