// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "ops/conv2d.h"
#include "ops/sparse_part.h"
#include "ops/sparsify.h"

namespace qpp {

/// The working memory of one run, in one block.
struct Conv2d::Scratch {
  std::int32_t* correction;       // [filters, padded to nr]
  float* multiplier;              // the same
  float* bias;                    // the same
  std::int16_t* residual_factor;  // the same, for an int8 residual
  std::byte* border;              // border_pixels() of zero points
  Range* ranges;                  // [threads]
  const void** pixels;            // [threads][taps * mr]
  const void** rows;              // [threads][kernel height], the source rows of a strip
  std::byte* copies;              // [threads][copy_bytes()]
  std::byte* sparse;              // [threads], of sparse_part_
  std::byte* levels;              // [threads][levels_bytes()], a tile, the input of sparsify_
  std::byte* wide;                // [threads], of WideTile
  std::size_t bytes;
};

/// Walks the output in tiles of mr successive pixels, over the ends of rows and images.
class Conv2d::Tiles {
 public:
  using Place = SparsePart::Place;

  Tiles(const Conv2d& conv, const std::byte* src, const RunArgs& run, const RunState& state,
        const Scratch& scratch, const OutputStage& stage, const SparsifyArgs& sparsify, int thread);

  /// Output pixels first .. end.
  void run(std::int64_t first, std::int64_t end);

 private:
  /// Computes a tile, whose first pixel is `first`, by the kernels; false: it needs run_wide().
  /// `place` becomes the pixel after the tile.
  bool run_fast(Place& place, std::int64_t first);
  /// Computes and stores a tile that has larger numbers than the kernels hold.
  void run_wide(Place place, std::int64_t first);
  /// Moves on by `count` pixels, at most to the start of the next row.
  void advance(Place& place, std::int64_t count) const;
  /// Moves on by `count` pixels.
  void advance_over_rows(Place& place, std::int64_t count) const;
  /// The source of an interior tile; one that reaches over the border is copied, and the border
  /// filled in, since the general kernel takes longer than that.
  void find_source(const Place& place);
  /// Bytes of zero points.
  void fill_zero(std::byte* dst, std::int64_t bytes) const;
  /// Points every tap of every pixel, from `place` on, at its source or at the border; `place`
  /// becomes the pixel after the tile.
  void gather(Place& place);
  /// The same for a pointwise convolution, whose sources have the layout of its outputs.
  void gather_in_line(std::int64_t first);
  /// The same for `count` pixels of one row, the first of which is pixel p of the tile.
  void gather_in_row(const Place& place, std::int64_t p, std::int64_t count);
  /// The same where some taps are outside of the image.
  void gather_at_border(const Place& place, std::int64_t p, std::int64_t count);
  /// The same with strips.
  void gather_in_strips(const Place& place, std::int64_t p, std::int64_t count);
  /// Strips are made in order, and the last few are kept.
  const std::byte* find_strip(std::int64_t strip);
  void fill_strip(std::int64_t strip);

  const Conv2d& conv_;
  const Shape& input_;
  std::int64_t pixel_bytes_;
  std::int64_t mr_;
  const std::byte* src_;
  const RunArgs& run_;
  const RunState& state_;
  const std::byte* border_;
  std::optional<SparsePart::Sums> sparse_;  // of a dense + sparse source
  std::byte* levels_;
  SparsifyArgs sparsify_;
  std::byte* wide_;
  const void** pixels_;
  const void** rows_;
  std::byte* copies_;
  std::int64_t next_strip_ = 0;  // the first that is not made yet
  const std::byte* residual_ = nullptr;
  std::int64_t residual_pixel_bytes_ = 0;
  std::int64_t dst_pixel_bytes_;
  ConvArgs args_;
};

}  // namespace qpp
