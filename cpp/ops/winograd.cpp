// SPDX-License-Identifier: Apache-2.0
#include "ops/winograd.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "ops/conv_output.h"
#include "ops/scratch.h"
#include "ops/sparsify.h"

namespace qpp {

namespace {

static_assert(kDensifyStepsPerUnit == kWinogradStepsPerUnit);

constexpr std::int64_t kMElements = winograd_m_index(kWinogradPoints, 0, 0);
constexpr std::int64_t kPatchColumns =
    kWinogradMaxBlock * kWinogradTile + 2;  // of a strip, at most

/// What the input kernels read: a dense + sparse source is widened first, since its values do not
/// fit int8.
DType kernel_src(const Conv2dTypes& types) { return types.sparse_src ? DType::f16 : types.src; }

/// What the output kernels write: a dense + sparse destination is made from fp16.
DType kernel_dst(const Conv2dTypes& types) { return types.sparse_dst ? DType::f16 : types.dst; }

}  // namespace

/// The working memory of one run, carved from one block.
struct WinogradConv2d::Scratch {
  float* multiplier;      // [filters, padded to 8]
  float* bias;            // the same
  std::byte* constants;   // winograd_constant_index()
  std::byte* border_row;  // one source row of zero points
  Range* ranges;          // [threads]
  std::byte* v;           // [threads][v_elements()]
  std::byte* m;           // [threads][kMElements]
  half* patch;            // [threads][patch_elements()], a strip of a dense + sparse source
  half* sums;             // [threads][sums_elements()], outputs of a block that sparsify_ reads
  std::size_t bytes;
};

/// What one thread does.
class WinogradConv2d::Worker {
 public:
  Worker(const WinogradConv2d& conv, const RunArgs& run, const Scratch& scratch,
         const OutputStage& stage, const SparsifyArgs& sparsify, std::int32_t zero_point,
         int thread)
      : conv_(conv),
        run_(run),
        sparsify_(sparsify),
        patch_(scratch.patch + thread * conv.patch_elements()),
        sums_(scratch.sums + thread * conv.sums_elements()),
        src_(static_cast<const std::byte*>(run.inputs[0].data)),
        dst_(static_cast<std::byte*>(run.output.data)),
        border_row_(scratch.border_row),
        constants_(scratch.constants),
        element_bytes_(static_cast<std::int64_t>(size_of(conv.kernels_.multiply->src))) {
    std::byte* v = scratch.v + thread * conv.v_elements() * element_bytes_;
    std::byte* m = scratch.m + thread * kMElements * element_bytes_;
    input_ = {.width = conv.input_.width,
              .pixel_stride = conv.input_.stride(),
              .channels = conv.channels_,
              .zero_point = zero_point,
              .block_tiles = conv.block_tiles_,
              .v = v};
    multiply_ = {.v = v, .m = m, .channels = conv.channels_, .block_tiles = conv.block_tiles_};
    for (WinogradOutputArgs& output : outputs_) {
      output = {.dst_row_stride = conv.output_.width * conv.output_.stride(),
                .dst_pixel_stride = conv.output_.stride(),
                .output = &stage};
    }
  }

  /// All tiles of a block, a part of the filters.
  void run(std::int64_t block, std::int64_t filter_part) {
    const std::int64_t first = block * conv_.block_tiles_;
    const std::int64_t all = conv_.input_.batch * conv_.tile_rows_ * conv_.tile_columns_;
    run_tiles(first, std::min(first + conv_.block_tiles_, all), filter_part);
  }

  /// Rows of tiles, of all images, for a dense + sparse destination: rows of pixels list their
  /// outliers from left to right.
  void run_rows(std::int64_t first_row, std::int64_t end_row) {
    const std::int64_t end = end_row * conv_.tile_columns_;
    for (std::int64_t tile = first_row * conv_.tile_columns_; tile < end;
         tile += conv_.block_tiles_) {
      run_tiles(tile, std::min(tile + conv_.block_tiles_, end), 0);
      for (std::size_t i = 0; i < strips_; ++i) sparsify_strip(i);
    }
  }

 private:
  /// Successive tiles, at most a block.
  void run_tiles(std::int64_t first, std::int64_t end, std::int64_t filter_part) {
    multiply_.tiles = end - first;
    strips_ = 0;
    for (std::int64_t tile = first; tile < end;) tile += begin_strip(tile, first, end);
    const std::int64_t filter_blocks = conv_.output_.stride() / kWinogradGroup;
    const std::int64_t filter_end = filter_blocks * (filter_part + 1) / conv_.filter_parts_;
    for (std::int64_t f = filter_blocks * filter_part / conv_.filter_parts_; f < filter_end; ++f) {
      multiply(f);
      transform_sums(f);
    }
  }

  /// Transforms the sources of the strip that begins with a tile, and ends with its row of tiles or
  /// before `end`; notes where its outputs go. Returns its number of tiles.
  std::int64_t begin_strip(std::int64_t tile, std::int64_t block_first, std::int64_t end) {
    const std::int64_t column = tile % conv_.tile_columns_;
    const std::int64_t row = tile / conv_.tile_columns_;
    const std::int64_t image = row / conv_.tile_rows_;
    const std::int64_t x = column * kWinogradTile;
    const std::int64_t y = row % conv_.tile_rows_ * kWinogradTile;
    const std::int64_t tiles = std::min(end - tile, conv_.tile_columns_ - column);
    const std::int64_t first_tile = tile - block_first;

    const std::int64_t row_bytes = conv_.input_.width * conv_.input_.stride() *
                                   static_cast<std::int64_t>(size_of(conv_.types_.src));
    input_.width = conv_.input_.width;
    input_.first_column = x - conv_.padding_.width;
    input_.tiles = tiles;
    input_.first_tile = first_tile;
    std::array<std::int64_t, kWinogradPatch> src_rows{};  // -1: beyond the image
    for (int i = 0; i < kWinogradPatch; ++i) {
      const std::int64_t src_y = y - conv_.padding_.height + i;
      const bool inside = src_y >= 0 && src_y < conv_.input_.height;
      src_rows[static_cast<std::size_t>(i)] = inside ? image * conv_.input_.height + src_y : -1;
      input_.rows[i] =
          inside ? src_ + (image * conv_.input_.height + src_y) * row_bytes : border_row_;
    }
    if (conv_.types_.sparse_src) widen_patch(src_rows);
    conv_.kernels_.input->function(input_);

    WinogradOutputArgs& output = outputs_[strips_++];
    output.m = static_cast<const std::byte*>(multiply_.m) +
               winograd_m_index(0, first_tile, 0) * element_bytes_;
    output.tiles = tiles;
    output.rows = std::min<std::int64_t>(kWinogradTile, conv_.output_.height - y);
    output.columns = std::min(tiles * kWinogradTile, conv_.output_.width - x);
    const std::int64_t pixel = (image * conv_.output_.height + y) * conv_.output_.width + x;
    pixels_[strips_ - 1] = pixel;
    if (conv_.types_.residual) {
      output.residual = static_cast<const std::byte*>(run_.inputs[1].data) +
                        pixel * conv_.output_.stride() *
                            static_cast<std::int64_t>(size_of(*conv_.types_.residual));
      output.residual_row_stride = conv_.output_.width * conv_.output_.stride();
    }
    if (conv_.sparsify_ != nullptr) {
      output.dst = sums_ + first_tile * kWinogradTile * kWinogradTile * output.dst_pixel_stride;
      output.dst_row_stride = tiles * kWinogradTile * output.dst_pixel_stride;
    } else {
      output.dst = dst_ + pixel * conv_.output_.stride() *
                              static_cast<std::int64_t>(size_of(conv_.types_.dst));
    }
    return tiles;
  }

  /// Replaces the sources of a strip by sums of their dense and their sparse part.
  void widen_patch(const std::array<std::int64_t, kWinogradPatch>& src_rows) {
    const std::int64_t stride = conv_.input_.stride();
    const std::int64_t reach = input_.first_column + input_.tiles * kWinogradTile + 2;
    const std::int64_t end = std::clamp<std::int64_t>(reach, 0, conv_.input_.width);
    const std::int64_t begin = std::clamp<std::int64_t>(input_.first_column, 0, end);
    const std::int64_t count = (end - begin) * stride;
    half* dst = patch_;
    for (std::size_t i = 0; i < kWinogradPatch; ++i, dst += count) {
      if (src_rows[i] < 0) {
        std::fill_n(dst, count, half{});
      } else {
        conv_.densify_->function(
            {.src = static_cast<const std::int8_t*>(input_.rows[i]) + begin * stride,
             .dst = dst,
             .pixels = end - begin,
             .channels = stride,
             .zero_point = input_.zero_point,
             .row = run_.inputs[0].outliers.row(src_rows[i]),
             .x = begin});
      }
      input_.rows[i] = dst;
    }
    input_.width = end - begin;
    input_.first_column -= begin;
  }

  /// Stores both parts of the outputs of a strip.
  void sparsify_strip(std::size_t strip) {
    const WinogradOutputArgs& output = outputs_[strip];
    for (std::int64_t i = 0; i < output.rows; ++i) {
      sparsify_.src = static_cast<const half*>(output.dst) + i * output.dst_row_stride;
      sparsify_pixels(*conv_.sparsify_, sparsify_, run_.output,
                      pixels_[strip] + i * conv_.output_.width, output.columns);
    }
  }

  void multiply(std::int64_t filter_block) {
    multiply_.filters = std::min<std::int64_t>(
        conv_.weights_.filters - filter_block * kWinogradGroup, kWinogradGroup);
    multiply_.u = conv_.weights_.data.data() + filter_block * kWinogradPoints *
                                                   conv_.weights_.channels * kWinogradGroup *
                                                   element_bytes_;
    conv_.kernels_.multiply->function(multiply_);
  }

  void transform_sums(std::int64_t filter_block) {
    const std::int64_t filter = filter_block * kWinogradGroup;
    for (std::size_t i = 0; i < strips_; ++i) {
      WinogradOutputArgs args = outputs_[i];
      args.constants = constants_ + winograd_constant_index(filter, 0) * element_bytes_;
      args.dst = static_cast<std::byte*>(args.dst) +
                 filter * static_cast<std::int64_t>(size_of(conv_.kernels_.output->dst));
      if (conv_.types_.residual) {
        args.residual = static_cast<const std::byte*>(args.residual) +
                        filter * static_cast<std::int64_t>(size_of(*conv_.types_.residual));
      }
      conv_.kernels_.output->function(args);
    }
  }

  const WinogradConv2d& conv_;
  const RunArgs& run_;
  SparsifyArgs sparsify_;
  half* patch_;
  half* sums_;
  const std::byte* src_;
  std::byte* dst_;
  const std::byte* border_row_;
  const std::byte* constants_;
  std::int64_t element_bytes_;
  WinogradInputArgs input_;
  WinogradMultiplyArgs multiply_;
  // One per strip, the successive tiles of a block in one row of tiles.
  std::array<WinogradOutputArgs, kWinogradMaxBlock> outputs_;
  std::array<std::int64_t, kWinogradMaxBlock> pixels_;  // the first output of each
  std::size_t strips_ = 0;
};

bool WinogradConv2d::supports(const Conv2dSpec& spec) { return is_3x3_stride_1(spec); }

WinogradConv2d::WinogradConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                               const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      padding_(spec.padding),
      activation_(spec.activation),
      channels_(spec.channels),
      kernels_(selection.winograd4(kernel_dst(types), kernel_src(types))),
      densify_(types.sparse_src ? &selection.densify() : nullptr),
      sparsify_(types.sparse_dst ? &selection.sparsify(DType::f16) : nullptr) {
  weights_ = pack_winograd_weights(spec.weights.data(), spec.filters, spec.channels,
                                   kernels_.multiply->weights);
  if (types.src == DType::qai8) {
    for (float& scale : weights_.scales) scale *= kWinogradStepsPerUnit;
  }
  bias_.assign(weights_.scales.size(), 0.0F);
  std::copy(spec.bias.begin(), spec.bias.end(), bias_.begin());
}

Shape WinogradConv2d::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = inputs[0];
  output_ = conv_output_shape(name_, inputs,
                              {.filters = weights_.filters,
                               .channels = channels_,
                               .kernel = {.height = 3, .width = 3},
                               .stride = {},
                               .padding = padding_,
                               .dilation = {}});
  tile_rows_ = (output_.height + kWinogradTile - 1) / kWinogradTile;
  tile_columns_ = (output_.width + kWinogradTile - 1) / kWinogradTile;
  const std::int64_t tiles = output_.batch * tile_rows_ * tile_columns_;
  // Every block streams all weights through the cache, so blocks are as large as their V may be
  // beside them in a second-level cache of 512 KB. All threads get a block, if there are enough.
  constexpr std::int64_t kMostElements = 160 * 1024;
  const std::int64_t fitting = kMostElements / (kWinogradPoints * weights_.channels);
  const std::int64_t share = round_up<std::int64_t>((tiles + threads - 1) / threads, 8);
  block_tiles_ = std::min(
      {std::int64_t{kWinogradMaxBlock}, share, std::max<std::int64_t>(fitting / 8 * 8, 8)});
  blocks_ = (tiles + block_tiles_ - 1) / block_tiles_;
  // Whoever splits a pixel into its two parts needs all of its filters.
  const std::int64_t most_parts = sparsify_ != nullptr ? 1 : output_.stride() / kWinogradGroup;
  filter_parts_ = std::clamp<std::int64_t>(threads / blocks_, 1, most_parts);
  return output_;
}

std::int64_t WinogradConv2d::v_elements() const {
  return kWinogradPoints * winograd_v_point_stride(block_tiles_, weights_.channels);
}

std::int64_t WinogradConv2d::patch_elements() const {
  return densify_ == nullptr ? 0 : kWinogradPatch * kPatchColumns * input_.stride();
}

std::int64_t WinogradConv2d::sums_elements() const {
  return sparsify_ == nullptr ? 0 : block_tiles_ * kWinogradTile * kWinogradTile * output_.stride();
}

WinogradConv2d::Scratch WinogradConv2d::lay_out(std::byte* base) const {
  Scratch scratch{};
  ScratchLayout layout(base);
  const auto filters = static_cast<std::int64_t>(weights_.scales.size());
  const auto element_bytes = static_cast<std::int64_t>(size_of(kernels_.multiply->src));
  const auto source_bytes = static_cast<std::int64_t>(size_of(types_.src));
  layout.add(scratch.multiplier, filters);
  layout.add(scratch.bias, filters);
  layout.add(scratch.constants, winograd_constant_index(output_.stride(), 0) * element_bytes);
  layout.add(scratch.border_row, input_.width * input_.stride() * source_bytes);
  layout.add(scratch.ranges, threads_);
  layout.add(scratch.v, threads_ * v_elements() * element_bytes);
  layout.add(scratch.m, threads_ * kMElements * element_bytes);
  layout.add(scratch.patch, threads_ * patch_elements());
  layout.add(scratch.sums, threads_ * sums_elements());
  scratch.bytes = layout.bytes();
  return scratch;
}

std::size_t WinogradConv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void WinogradConv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  OutputStage stage = fill_output_stage(types_, activation_, weights_, bias_, state,
                                        {.multiplier = scratch.multiplier, .bias = scratch.bias});
  fill_winograd_constants(stage, output_.stride(), kernels_.multiply->dst, scratch.constants);
  const std::int32_t zero_point =
      types_.src == DType::qai8 ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                                : 0;
  std::memset(scratch.border_row, zero_point,
              static_cast<std::size_t>(input_.width * input_.stride()) * size_of(types_.src));
  std::fill_n(scratch.ranges, threads_, Range{});

  SparsifyArgs sparsify;
  if (sparsify_ != nullptr) {
    // Outputs are levels, still without the zero point; sparsify cuts them to their bounds.
    sparsify = sparsify_bounds(state.qparams[static_cast<std::size_t>(types_.dst_row)]);
    sparsify.inverse_scale = 1;
    sparsify.lo = static_cast<std::int32_t>(std::nearbyint(stage.lo)) + stage.zero_point;
    sparsify.hi = static_cast<std::int32_t>(std::nearbyint(stage.hi)) + stage.zero_point;
    stage.lo = -INFINITY;
    stage.hi = INFINITY;
  }
  const auto work = [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Worker worker(*this, args, scratch, own, sparsify, zero_point, thread);
    if (sparsify_ != nullptr) return worker.run_rows(begin, end);
    for (std::int64_t i = begin; i < end; ++i) worker.run(i / filter_parts_, i % filter_parts_);
  };
  const std::int64_t units =
      sparsify_ != nullptr ? output_.batch * tile_rows_ : blocks_ * filter_parts_;
  state.pool.parallel_for(units, work);

  if (types_.range_row < 0) return;
  Range& range = state.ranges[static_cast<std::size_t>(types_.range_row)] = Range{};
  for (int thread = 0; thread < threads_; ++thread) widen(range, scratch.ranges[thread]);
}

}  // namespace qpp
