// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/output_stage.h"
#include "kernels/pack.h"

namespace qpp {

/// 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3): a tile of 4x4 outputs takes 36 products
/// per channel and filter instead of 144. With d the 6x6 sources of a tile (neighbours share two
/// rows or columns), g the 3x3 weights of a filter and a channel, and o the elementwise product,
///
///   V = B^T d B,  U = G g G^T,  M = sum over c of U o V,  Z = A^T M A,
///   convolution[i, j] = Z[i, j] * a^(i + j)
///
/// in three kernels: input (d to V), multiply (V to M) and output (M to stored values). U is
/// computed once, when weights are packed. `Element` below is f16 in the NEON kernels, f32 in the
/// reference.
///
/// The points of interpolation are 0, a, -a, b, -b and infinity with a = 11/16, b = 2a:
///
///         | a2*b2     0  -a2-b2     0  1  0 |        | 1/(a2*b2)                          |
///         |     0 -a*b2     -b2     a  1  0 |        | 1/(2*a2*(a2-b2)) * (1,  a, a2)     |
///   B^T = |     0  a*b2     -b2    -a  1  0 |    G = | 1/(2*a2*(a2-b2)) * (1, -a, a2)     |
///         |     0 -a2*b     -a2     b  1  0 |        | 1/(2*b2*(b2-a2)) * (1,  b, b2)     |
///         |     0  a2*b     -a2    -b  1  0 |        | 1/(2*b2*(b2-a2)) * (1, -b, b2)     |
///         |     0 a2*b2       0 -a2-b2 0  1 |        | 0            0              1/a^3  |
///
///         | 1  1   1  1   1  0 |
///   A^T = | 0  1  -1  2  -2  0 |    where a2 = a^2, b2 = b^2
///         | 0  1   1  4   4  0 |
///         | 0  1  -1  8  -8  1 |
///
/// Rounding errors of U, V and M reach the result amplified, in power by 15 per dimension with
/// these points and by 32 with the usual 0, 1, -1, 2, -2, which halves the relative rms error. a,
/// b, a2 and b2 are exact in fp16. A holds powers of two because the powers of a that it lacks are
/// left to the output.
///
/// Scales: fp16 sources are taken as they are, int8 sources in 1/16 steps from their zero point, so
/// that they are within +-16, too. Packing multiplies the weights of each filter by the power of
/// two that lets no sum of magnitudes pass fp16's range for any sources within
/// +-kWinogradSourceLimit. int8 therefore cannot overflow; fp16 sources of random signs leave room
/// for a hundred times more, up to 2700, where V itself might overflow. Dense + sparse sources are
/// divided by a power of two where outliers would need a tenth of that, or less if channels are
/// few.
inline constexpr float kWinogradA = 0.6875F;
inline constexpr float kWinogradSourceLimit = 16;
inline constexpr float kWinogradStepsPerUnit = 16;  // of an int8 source, and of densified ones

inline constexpr int kWinogradTile = 4;       // outputs of a tile in each dimension
inline constexpr int kWinogradPatch = 6;      // sources of a tile in each dimension
inline constexpr int kWinogradPoints = 36;    // of V, U and M: point = row * 6 + column
inline constexpr int kWinogradGroup = 8;      // tiles, channels and filters go in groups of eight
inline constexpr int kWinogradMaxBlock = 16;  // tiles of a block: V of a block is made, multiplied
                                              // and turned into outputs at a time

/// Elements from one point of V to the next. A cache line more than there are elements: strides of
/// a power of two would bring all points of a tile into few sets of the cache.
constexpr std::int64_t winograd_v_point_stride(std::int64_t block_tiles, std::int64_t channels) {
  return block_tiles * channels + 32;
}

/// Where V of a block of tiles holds its elements: [point][tile / 8][c / 8][tile % 8][c % 8], for
/// `block_tiles` and `channels` that are multiples of 8.
constexpr std::int64_t winograd_v_index(std::int64_t point, std::int64_t tile, std::int64_t c,
                                        std::int64_t block_tiles, std::int64_t channels) {
  return point * winograd_v_point_stride(block_tiles, channels) + tile / 8 * 8 * channels +
         c / 8 * 64 + tile % 8 * 8 + c % 8;
}

/// Whether a block of eight filters holds so few that vectors of U hold channels, not filters.
/// Products of vectors then sum eight channels in each lane, so that precision bounds the channels.
constexpr bool winograd_few_filters(std::int64_t filters, std::int64_t channels) {
  constexpr std::int64_t kFewFilters = 2;
  constexpr std::int64_t kMaxChannels = 256;
  return filters <= kFewFilters && channels <= kMaxChannels;
}

/// Where U of a block that holds `filters` filters holds its elements: [point][c][f] or, for few
/// filters, [point][c / 8][f][c % 8]; `channels` is a multiple of 8.
constexpr std::int64_t winograd_u_index(std::int64_t point, std::int64_t c, std::int64_t f,
                                        std::int64_t filters, std::int64_t channels) {
  const std::int64_t first = point * channels * kWinogradGroup;
  return winograd_few_filters(filters, channels) ? first + c / 8 * 64 + f * 8 + c % 8
                                                 : first + c * 8 + f;
}

/// Where M, eight filters of a block of tiles, holds its elements: [point][tile][f].
constexpr std::int64_t winograd_m_index(std::int64_t point, std::int64_t tile, std::int64_t f) {
  return (point * kWinogradMaxBlock + tile) * kWinogradGroup + f;
}

/// V of successive tiles of one row of tiles.
struct WinogradInputArgs {
  const void* rows[kWinogradPatch] = {};  // column 0 of the six rows of sources; a row beyond the
                                          // image is one of zero points
  std::int64_t width = 0;                 // columns of a row; those beyond count as zero points
  std::int64_t first_column = 0;          // where the first tile's sources begin; may be negative
  std::int64_t pixel_stride = 0;          // elements, a multiple of 8
  std::int64_t channels = 0;              // unpadded; readable up to a multiple of 8, V of
                                          // which is finite
  std::int32_t zero_point = 0;            // of an int8 source
  std::int64_t tiles = 0;                 // 1 .. kWinogradMaxBlock
  std::int64_t first_tile = 0;            // its place in the block
  std::int64_t block_tiles = 0;           // a multiple of 8, up to kWinogradMaxBlock
  void* v = nullptr;                      // winograd_v_index(), channels rounded up to 8
};

/// M of one block of eight filters: m[point, tile, f] = sum over c of v[point, tile, c] * u[point,
/// c, f]. Tiles beyond `tiles` may be written, too; filters beyond `filters` become 0.
struct WinogradMultiplyArgs {
  const void* v = nullptr;
  const void* u = nullptr;                // winograd_u_index(), see pack_winograd_weights()
  void* m = nullptr;                      // winograd_m_index()
  std::int64_t channels = 0;              // unpadded; V and U hold them rounded up to 8, with
                                          // zeros in U for the others
  std::int64_t filters = kWinogradGroup;  // 1 .. 8, of the block
  std::int64_t tiles = 0;                 // 1 .. block_tiles
  std::int64_t block_tiles = 0;           // a multiple of 8, up to kWinogradMaxBlock
};

inline constexpr int kWinogradPowers = 2 * kWinogradTile - 1;  // of a, in convolution[i, j]

/// Where the bias (row 0) and the multipliers of Z[i, j] (row 1 + i + j) of a filter are:
/// [f / 8][row][f % 8].
constexpr std::int64_t winograd_constant_index(std::int64_t f, std::int64_t row) {
  return (f / 8 * (1 + kWinogradPowers) + row) * 8 + f % 8;
}

/// Fills them from an output stage, limited to the range of the type. `filters` is a multiple of 8,
/// `dtype` f16 or f32.
void fill_winograd_constants(const OutputStage& output, std::int64_t filters, DType dtype,
                             void* constants);

/// Stored values of eight filters of successive tiles of one row of tiles. `output` is applied to
/// convolution[i, j], with the multipliers and biases of `constants`; with f16 elements levels are
/// computed in fp16, tanh in fp32.
struct WinogradOutputArgs {
  const void* m = nullptr;               // winograd_m_index() from the first tile on
  std::int64_t tiles = 0;                // 1 .. kWinogradMaxBlock
  std::int64_t rows = 0;                 // rows inside the image, 1 .. 4
  std::int64_t columns = 0;              // columns inside the image, 4 * tiles - 3 .. 4 * tiles
  void* dst = nullptr;                   // the first tile's first output
  std::int64_t dst_row_stride = 0;       // elements
  std::int64_t dst_pixel_stride = 0;     // elements
  const void* constants = nullptr;       // of the eight filters, Elements
  const OutputStage* output = nullptr;   // its arrays are not read
  const void* residual = nullptr;        // added to dst as in output->residual, or null
  std::int64_t residual_row_stride = 0;  // elements; pixels are as far apart as those of dst
};

using WinogradInputKernel = Kernel<WinogradInputArgs>;
using WinogradMultiplyKernel = WeightedKernel<WinogradMultiplyArgs>;
using WinogradOutputKernel = Kernel<WinogradOutputArgs>;

/// U of 3x3 weights, OIHW: blocks of eight filters, of which the last may hold fewer, each in the
/// layout of winograd_u_index(). Filters and channels are padded with zeros to multiples of 8.
/// `scales` undoes the powers of two that the filters were multiplied by. `dtype` is f16 or f32.
PackedWeights pack_winograd_weights(const float* weights, std::int64_t filters,
                                    std::int64_t channels, DType dtype);

}  // namespace qpp
