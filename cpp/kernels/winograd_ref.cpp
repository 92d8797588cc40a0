// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <optional>

#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr float kA = kWinogradA;
constexpr float kA2 = kA * kA;
constexpr float kB = 2 * kA;
constexpr float kB2 = kB * kB;

/// B^T d.
using Patch = std::array<float, kWinogradPatch>;
Patch transform_sources(const Patch& d) {
  return {(d[4] - kB2 * d[2]) - kA2 * (d[2] - kB2 * d[0]),
          (d[4] - kB2 * d[2]) + kA * (d[3] - kB2 * d[1]),
          (d[4] - kB2 * d[2]) - kA * (d[3] - kB2 * d[1]),
          (d[4] - kA2 * d[2]) + kB * (d[3] - kA2 * d[1]),
          (d[4] - kA2 * d[2]) - kB * (d[3] - kA2 * d[1]),
          (d[5] - kA2 * d[3]) - kB2 * (d[3] - kA2 * d[1])};
}

/// A^T m.
using Tile = std::array<float, kWinogradTile>;
Tile transform_sums(const Patch& m) {
  return {m[0] + (m[1] + m[2]) + (m[3] + m[4]), (m[1] - m[2]) + 2 * (m[3] - m[4]),
          (m[1] + m[2]) + 4 * (m[3] + m[4]), (m[1] - m[2]) + 8 * (m[3] - m[4]) + m[5]};
}

float source(const WinogradInputArgs& args, half value) {
  (void)args;
  return to_float(value);
}
float source(const WinogradInputArgs& args, std::int8_t value) {
  return static_cast<float>(value - args.zero_point) / kWinogradStepsPerUnit;
}

template <typename Src>
void input_ref(const WinogradInputArgs& args) {
  const std::int64_t channels = round_up<std::int64_t>(args.channels, kWinogradGroup);
  auto* v = static_cast<float*>(args.v);
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    for (std::int64_t c = 0; c < channels; ++c) {
      std::array<Patch, kWinogradPatch> columns;
      for (int j = 0; j < kWinogradPatch; ++j) {
        Patch column{};
        const std::int64_t x = args.first_column + tile * kWinogradTile + j;
        if (c < args.channels && x >= 0 && x < args.width) {
          for (int i = 0; i < kWinogradPatch; ++i) {
            column[i] =
                source(args, static_cast<const Src*>(args.rows[i])[x * args.pixel_stride + c]);
          }
        }
        columns[j] = transform_sources(column);
      }
      for (int i = 0; i < kWinogradPatch; ++i) {
        const Patch row = transform_sources({columns[0][i], columns[1][i], columns[2][i],
                                             columns[3][i], columns[4][i], columns[5][i]});
        for (int j = 0; j < kWinogradPatch; ++j) {
          v[winograd_v_index(i * kWinogradPatch + j, args.first_tile + tile, c, args.block_tiles,
                             channels)] = row[j];
        }
      }
    }
  }
}

template <typename Dst>
void output_ref(const WinogradOutputArgs& args) {
  const auto* m = static_cast<const float*>(args.m);
  const auto* constants = static_cast<const float*>(args.constants);
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    for (int f = 0; f < kWinogradGroup; ++f) {
      std::array<Tile, kWinogradPatch> columns;
      for (int j = 0; j < kWinogradPatch; ++j) {
        Patch column;
        for (int i = 0; i < kWinogradPatch; ++i) {
          column[i] = m[winograd_m_index(i * kWinogradPatch + j, tile, f)];
        }
        columns[j] = transform_sums(column);
      }
      for (int i = 0; i < kWinogradTile && i < args.rows; ++i) {
        const Tile row = transform_sums({columns[0][i], columns[1][i], columns[2][i], columns[3][i],
                                         columns[4][i], columns[5][i]});
        for (int j = 0; j < kWinogradTile; ++j) {
          const std::int64_t x = tile * kWinogradTile + j;
          if (x >= args.columns) continue;
          std::optional<float> residual;
          if (args.residual != nullptr) {
            residual = residual_at(args.output->residual, args.residual,
                                   i * args.residual_row_stride + x * args.dst_pixel_stride + f);
          }
          const float level =
              output_level(*args.output, row[j], constants[winograd_constant_index(f, 1 + i + j)],
                           constants[winograd_constant_index(f, 0)], residual);
          store(*args.output, level,
                static_cast<Dst*>(args.dst) + i * args.dst_row_stride + x * args.dst_pixel_stride +
                    f);
        }
      }
    }
  }
}

}  // namespace

void winograd4_input_f32_f16_ref(const WinogradInputArgs& args) { input_ref<half>(args); }
void winograd4_input_f32_qai8_ref(const WinogradInputArgs& args) { input_ref<std::int8_t>(args); }

void winograd4_multiply_f32_f32_f32_ref(const WinogradMultiplyArgs& args) {
  const auto* v = static_cast<const float*>(args.v);
  const std::int64_t padded = round_up<std::int64_t>(args.channels, kWinogradGroup);
  for (std::int64_t point = 0; point < kWinogradPoints; ++point) {
    const auto* u = static_cast<const float*>(args.u);
    for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
      std::array<float, kWinogradGroup> sums{};
      for (std::int64_t c = 0; c < args.channels; ++c) {
        const float value = v[winograd_v_index(point, tile, c, args.block_tiles, padded)];
        for (int f = 0; f < kWinogradGroup; ++f) {
          sums[f] += value * u[winograd_u_index(point, c, f, args.filters, padded)];
        }
      }
      for (int f = 0; f < kWinogradGroup; ++f) {
        static_cast<float*>(args.m)[winograd_m_index(point, tile, f)] = sums[f];
      }
    }
  }
}

void winograd4_output_f16_f32_ref(const WinogradOutputArgs& args) { output_ref<half>(args); }
void winograd4_output_qai8_f32_ref(const WinogradOutputArgs& args) {
  output_ref<std::int8_t>(args);
}

}  // namespace qpp
