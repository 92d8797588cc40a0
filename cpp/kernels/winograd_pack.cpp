// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/winograd.h"

namespace qpp {
namespace {

constexpr float kMaxHalf = 65504;

constexpr double kA = kWinogradA;
constexpr double kA2 = kA * kA;
constexpr double kB = 2 * kA;
constexpr double kB2 = kB * kB;
constexpr double kNorm0 = 1 / (kA2 * kB2);
constexpr double kNormA = 1 / (2 * kA2 * (kA2 - kB2));
constexpr double kNormB = 1 / (2 * kB2 * (kB2 - kA2));

constexpr double kG[kWinogradPatch][3] = {{kNorm0, 0, 0},
                                          {kNormA, kNormA * kA, kNormA * kA2},
                                          {kNormA, -kNormA * kA, kNormA * kA2},
                                          {kNormB, kNormB * kB, kNormB * kB2},
                                          {kNormB, -kNormB * kB, kNormB * kB2},
                                          {0, 0, 1 / (kA2 * kA)}};

/// Sums of magnitudes of the rows of B^T, and the magnitudes of A^T.
constexpr double kB0 = (1 + kA2) * (1 + kB2);
constexpr double kBA = (1 + kA) * (1 + kB2);
constexpr double kBB = (1 + kB) * (1 + kA2);
constexpr double kSourceSum[kWinogradPatch] = {kB0, kBA, kBA, kBB, kBB, kB0};
constexpr double kOutput[kWinogradTile][kWinogradPatch] = {
    {1, 1, 1, 1, 1, 0}, {0, 1, 1, 2, 2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, 1, 8, 8, 1}};

using Points = std::array<double, kWinogradPoints>;

/// G g G^T.
Points transform(const float* g) {
  Points u{};
  for (int i = 0; i < kWinogradPatch; ++i) {
    for (int j = 0; j < kWinogradPatch; ++j) {
      for (int y = 0; y < 3; ++y) {
        for (int x = 0; x < 3; ++x) u[i * kWinogradPatch + j] += kG[i][y] * g[y * 3 + x] * kG[j][x];
      }
    }
  }
  return u;
}

/// The largest magnitude that any value on the way to Z can have, for sources within
/// kWinogradSourceLimit; `magnitudes` are the sums of |U| over the channels.
double largest_sum(const Points& magnitudes) {
  double largest = 0;
  for (const auto& row : kOutput) {
    for (const auto& column : kOutput) {
      double sum = 0;
      for (int i = 0; i < kWinogradPatch; ++i) {
        for (int j = 0; j < kWinogradPatch; ++j) {
          sum += row[i] * column[j] * kSourceSum[i] * kSourceSum[j] *
                 magnitudes[i * kWinogradPatch + j];
        }
      }
      largest = std::max(largest, sum);
    }
  }
  return largest * kWinogradSourceLimit;
}

/// Turns the last block, packed as [point][c][f], into one of few filters.
template <typename Element>
void turn_last_block(std::int64_t filters, std::int64_t channels, PackedWeights& packed) {
  const std::int64_t size = kWinogradPoints * channels * kWinogradGroup;
  auto* const end = reinterpret_cast<Element*>(packed.data.data() + packed.data.size());
  Element* const block = end - size;
  const std::vector<Element> before(block, end);
  for (std::int64_t point = 0; point < kWinogradPoints; ++point) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t f = 0; f < kWinogradGroup; ++f) {
        block[winograd_u_index(point, c, f, filters, channels)] =
            before[static_cast<std::size_t>((point * channels + c) * kWinogradGroup + f)];
      }
    }
  }
}

}  // namespace

PackedWeights pack_winograd_weights(const float* weights, std::int64_t filters,
                                    std::int64_t channels, DType dtype) {
  const std::int64_t padded_channels = round_up<std::int64_t>(channels, kWinogradGroup);
  std::vector<float> transformed(
      static_cast<std::size_t>(filters * padded_channels * kWinogradPoints));
  std::vector<Points> filter(static_cast<std::size_t>(channels));
  std::vector<float> scales;
  for (std::int64_t f = 0; f < filters; ++f) {
    Points magnitudes{};
    for (std::int64_t c = 0; c < channels; ++c) {
      Points& u = filter[static_cast<std::size_t>(c)] = transform(weights + (f * channels + c) * 9);
      for (int point = 0; point < kWinogradPoints; ++point) magnitudes[point] += std::abs(u[point]);
    }
    const double largest = largest_sum(magnitudes);
    const int exponent = largest > 0 ? std::ilogb(kMaxHalf / largest) : 0;
    const double power = std::ldexp(1.0, exponent);
    for (std::int64_t c = 0; c < channels; ++c) {
      for (int point = 0; point < kWinogradPoints; ++point) {
        transformed[static_cast<std::size_t>((f * padded_channels + c) * kWinogradPoints + point)] =
            static_cast<float>(filter[static_cast<std::size_t>(c)][point] * power);
      }
    }
    scales.push_back(std::ldexp(1.0F, -exponent));
  }
  PackedWeights packed = pack_conv_weights(transformed.data(), filters, padded_channels,
                                           kWinogradPoints, dtype, kWinogradGroup, 1,
                                           /*scaled=*/false);
  std::copy(scales.begin(), scales.end(), packed.scales.begin());
  const std::int64_t last_filters = (filters - 1) % kWinogradGroup + 1;
  if (winograd_few_filters(last_filters, padded_channels)) {
    if (dtype == DType::f16) {
      turn_last_block<half>(last_filters, padded_channels, packed);
    } else {
      turn_last_block<float>(last_filters, padded_channels, packed);
    }
  }
  return packed;
}

void fill_winograd_constants(const OutputStage& output, std::int64_t filters, DType dtype,
                             void* constants) {
  const auto put = [&](std::int64_t f, std::int64_t row, float value) {
    const std::int64_t index = winograd_constant_index(f, row);
    if (dtype == DType::f16) {
      static_cast<half*>(constants)[index] = to_half(std::clamp(value, -kMaxHalf, kMaxHalf));
    } else {
      static_cast<float*>(constants)[index] = value;
    }
  };
  for (std::int64_t f = 0; f < filters; ++f) {
    put(f, 0, output.bias[f]);
    float multiplier = output.multiplier[f];
    for (int power = 0; power < kWinogradPowers; ++power) {
      put(f, 1 + power, multiplier);
      multiplier *= kWinogradA;
    }
  }
}

}  // namespace qpp
