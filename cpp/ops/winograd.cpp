// SPDX-License-Identifier: Apache-2.0
#include "ops/winograd.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/memory_layout.h"
#include "ops/conv_output.h"
#include "ops/sparsify.h"

namespace qpp {

namespace {

static_assert(kDensifyStepsPerUnit == kWinogradStepsPerUnit);

constexpr std::int64_t kMElements = winograd_m_index(kWinogradPoints, 0, 0);
constexpr std::int64_t kPatchColumns =
    kWinogradMaxBlock * kWinogradTile + 2;  // of a strip, at most

/// The type that input kernels read: a dense + sparse source is merged to fp16 first, since its
/// values do not fit int8.
DType kernel_src(const Conv2dTypes& types) { return types.sparse_src ? DType::f16 : types.src; }

/// Up to which magnitude sources may have outliers, in the units of densified ones: sums of a
/// filter that has one channel only fit fp16 if all sources are within kWinogradSourceLimit, while
/// outliers are few and share the room with all channels.
float outlier_limit(const Conv2dSpec& spec) {
  constexpr float kMaxLimit = 256;
  constexpr float kSafety = 0.25F;
  float limit = kMaxLimit;
  const auto size = static_cast<std::size_t>(spec.kernel.height * spec.kernel.width);
  const auto filter_size = size * static_cast<std::size_t>(spec.channels);
  for (std::size_t first = 0; first < spec.weights.size(); first += filter_size) {
    float largest = 0;
    float total = 0;
    for (std::size_t i = first; i < first + filter_size; i += size) {
      float sum = 0;
      for (std::size_t tap = i; tap < i + size; ++tap) sum += std::abs(spec.weights[tap]);
      largest = std::max(largest, sum);
      total += sum;
    }
    if (largest > 0) limit = std::min(limit, kSafety * kWinogradSourceLimit * total / largest);
  }
  return std::max(limit, kWinogradSourceLimit);
}

constexpr int kMaxLevelExponent = 12;  // 2^12 * 65504 steps are kMaxResidual
constexpr int kLevelExponentStep = 4;
static_assert(kMaxResidual == 65504 << kMaxLevelExponent);

/// The type that the output kernels write: a dense + sparse destination is made from fp16.
DType kernel_dst(const Conv2dTypes& types) { return types.sparse_dst ? DType::f16 : types.dst; }

}  // namespace

/// The working memory of one run, in one block.
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

/// The work of one thread.
class WinogradConv2d::Worker {
 public:
  Worker(const WinogradConv2d& conv, const RunArgs& run, const Scratch& scratch,
         const OutputStage& stage, const SparsifyArgs& sparsify, int level_exponent,
         std::int32_t zero_point, int thread)
      : conv_(conv),
        run_(run),
        sparsify_(sparsify),
        stage_(stage),
        level_exponent_(level_exponent),
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
                .output = &stage_};
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
      const int exponent = level_exponent_;
      while (!sparsify_strips()) {  // V is still there
        level_exponent_ += kLevelExponentStep;
        compute(0);
      }
      level_exponent_ = exponent;
    }
  }

 private:
  /// Successive tiles, at most a block.
  void run_tiles(std::int64_t first, std::int64_t end, std::int64_t filter_part) {
    multiply_.tiles = end - first;
    strips_ = 0;
    for (std::int64_t tile = first; tile < end;) tile += begin_strip(tile, first, end);
    compute(filter_part);
  }

  /// The outputs of the strips that were begun.
  void compute(std::int64_t filter_part) {
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
    source_exponents_[strips_] = conv_.types_.sparse_src ? densify_patch(src_rows) : 0;
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

  /// Replaces the sources of a strip by sums of their dense and their sparse part. Returns the
  /// exponent of the power of two that these are divided by: that of the whole rows, since threads
  /// divide them into strips in different ways.
  int densify_patch(const std::array<std::int64_t, kWinogradPatch>& src_rows) {
    const std::int64_t stride = conv_.input_.stride();
    const std::int64_t last = input_.first_column + input_.tiles * kWinogradTile + 2;
    const std::int64_t end = std::clamp<std::int64_t>(last, 0, conv_.input_.width);
    const std::int64_t begin = std::clamp<std::int64_t>(input_.first_column, 0, end);
    const std::int64_t count = (end - begin) * stride;
    const float largest = (255 + largest_residual(src_rows)) / kDensifyStepsPerUnit;
    int exponent = 0;
    while (std::ldexp(largest, -exponent) > conv_.outlier_limit_) ++exponent;
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
             .x = begin,
             .steps_per_unit = std::ldexp(kDensifyStepsPerUnit, exponent)});
      }
      input_.rows[i] = dst;
    }
    input_.width = end - begin;
    input_.first_column -= begin;
    return exponent;
  }

  /// The largest magnitude of the residuals of some rows, in steps.
  [[nodiscard]] float largest_residual(
      const std::array<std::int64_t, kWinogradPatch>& src_rows) const {
    std::uint16_t largest = 0;  // halves are in the order of their bits
    for (const std::int64_t src_row : src_rows) {
      if (src_row < 0) continue;
      const OutlierRow row = run_.inputs[0].outliers.row(src_row);
      for (std::uint32_t i = 0; i < row.begins[conv_.input_.width]; ++i) {
        const auto magnitude = static_cast<std::uint16_t>(row.residuals[i].bits & 0x7fffU);
        largest = std::max(largest, magnitude);
      }
    }
    return to_float(half{largest}) * kStepsPerResidual;
  }

  /// Stores both parts of the outputs of all strips. Returns false, and stores nothing, if levels
  /// exceed fp16.
  bool sparsify_strips() {
    std::array<std::uint32_t, kWinogradMaxBlock * kWinogradTile> dropped{};
    const std::int64_t width = conv_.output_.width;
    SparsifyArgs args = sparsify_;
    args.inverse_scale = std::ldexp(1.0F, level_exponent_);
    const std::int32_t limit = 65504 << level_exponent_;
    args.saturation_lo = args.zero_point - limit;
    args.saturation_hi = args.zero_point + limit;
    bool fits = true;
    for (std::size_t strip = 0; strip < strips_; ++strip) {
      const WinogradOutputArgs& output = outputs_[strip];
      for (std::int64_t i = 0; i < output.rows; ++i) {
        const std::int64_t first = pixels_[strip] + i * width;
        dropped[strip * kWinogradTile + static_cast<std::size_t>(i)] =
            count_dropped_before(run_.output, first);
        args.src = static_cast<const half*>(output.dst) + i * output.dst_row_stride;
        fits &= sparsify_pixels(*conv_.sparsify_, args, run_.output, first, output.columns);
      }
    }
    if (fits || level_exponent_ + kLevelExponentStep > kMaxLevelExponent) return true;
    for (std::size_t strip = strips_; strip-- > 0;) {
      for (std::int64_t i = 0; i < outputs_[strip].rows; ++i) {
        restore_dropped(run_.output, pixels_[strip] + i * width,
                        dropped[strip * kWinogradTile + static_cast<std::size_t>(i)]);
      }
    }
    return false;
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
      if (source_exponents_[i] == 0 && level_exponent_ == 0) {
        conv_.kernels_.output->function(args);
      } else {
        transform_scaled(args, filter, source_exponents_[i]);
      }
    }
  }

  /// Eight filters, whose sources and levels are divided by powers of two.
  void transform_scaled(WinogradOutputArgs& args, std::int64_t filter, int source_exponent) const {
    std::array<float, kWinogradGroup> multiplier{};
    std::array<float, kWinogradGroup> bias{};
    for (std::size_t i = 0; i < kWinogradGroup; ++i) {
      const std::size_t f = static_cast<std::size_t>(filter) + i;
      multiplier[i] = std::ldexp(stage_.multiplier[f], source_exponent - level_exponent_);
      bias[i] = std::ldexp(stage_.bias[f], -level_exponent_);
    }
    OutputStage stage = stage_;
    stage.multiplier = multiplier.data();
    stage.bias = bias.data();
    alignas(kAlignment)
        std::byte constants[winograd_constant_index(kWinogradGroup, 0) * sizeof(float)];
    fill_winograd_constants(stage, kWinogradGroup, conv_.kernels_.multiply->dst, constants);
    stage.residual.scale = std::ldexp(stage_.residual.scale, -level_exponent_);
    stage.post_scale = std::ldexp(stage_.post_scale, -level_exponent_);
    args.constants = constants;
    args.output = &stage;
    conv_.kernels_.output->function(args);
  }

  const WinogradConv2d& conv_;
  const RunArgs& run_;
  SparsifyArgs sparsify_;
  const OutputStage& stage_;
  int level_exponent_;  // levels for sparsify_ are divided by this power of two
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
  std::array<std::int64_t, kWinogradMaxBlock> pixels_;     // the first output of each
  std::array<int, kWinogradMaxBlock> source_exponents_{};  // sources are divided by this power
  std::size_t strips_ = 0;
};

bool WinogradConv2d::supports(const Conv2dSpec& spec, DType src) {
  constexpr float kMaxWeight = 64;
  return is_3x3_stride_1(spec) &&
         (src != DType::f16 ||
          std::all_of(spec.weights.begin(), spec.weights.end(),
                      [](float weight) { return std::abs(weight) <= kMaxWeight; }));
}

WinogradConv2d::Kernels::Kernels(const Conv2dTypes& types, const KernelSelection& selection)
    : multiply(&selection.winograd4_multiply()),
      input(&selection.winograd4_input(multiply->src, kernel_src(types))),
      output(&selection.winograd4_output(kernel_dst(types), multiply->dst)) {}

WinogradConv2d::WinogradConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                               const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      padding_(spec.padding),
      activation_(spec.activation),
      channels_(spec.channels),
      kernels_(types, selection),
      densify_(types.sparse_src ? &selection.densify() : nullptr),
      sparsify_(types.sparse_dst ? &selection.sparsify(DType::qai8, DType::f16) : nullptr),
      outlier_limit_(types.sparse_src ? outlier_limit(spec) : 0) {
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
  // next to them in a second-level cache of 512 KB. All threads get a block, if there are enough.
  constexpr std::int64_t kMaxElements = 160 * 1024;
  const std::int64_t fitting = kMaxElements / (kWinogradPoints * weights_.channels);
  const std::int64_t share = round_up<std::int64_t>((tiles + threads - 1) / threads, 8);
  block_tiles_ = std::min(
      {std::int64_t{kWinogradMaxBlock}, share, std::max<std::int64_t>(fitting / 8 * 8, 8)});
  blocks_ = (tiles + block_tiles_ - 1) / block_tiles_;
  // The split of a pixel into its two parts needs all of its filters.
  const std::int64_t max_parts = sparsify_ != nullptr ? 1 : output_.stride() / kWinogradGroup;
  filter_parts_ = std::clamp<std::int64_t>(threads / blocks_, 1, max_parts);
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
  MemoryLayout layout(base);
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

/// The exponent of the divisor of a dense + sparse destination's levels, so that the constants fit
/// fp16.
int WinogradConv2d::choose_level_exponent(const OutputStage& stage) const {
  float largest = std::max(stage.residual.scale, stage.post_scale);
  for (std::size_t f = 0; f < bias_.size(); ++f) {
    largest = std::max(largest, std::abs(stage.bias[f]));
  }
  int exponent = 0;
  while (std::ldexp(largest, -exponent) > 60000 && exponent < kMaxLevelExponent) {
    exponent += kLevelExponentStep;
  }
  return exponent;
}

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
  int level_exponent = 0;
  if (sparsify_ != nullptr) {
    // Outputs are levels without the zero point; sparsify clips them to their bounds.
    const QParams& row = state.qparams[static_cast<std::size_t>(types_.dst_row)];
    sparsify = sparsify_bounds(row);
    const auto bound = [&](float value) {
      const double level =
          std::nearbyint(static_cast<double>(value) * static_cast<double>(row.inverse_scale)) +
          row.zero_point;
      return static_cast<std::int32_t>(std::clamp<double>(level, sparsify.lo, sparsify.hi));
    };
    sparsify.lo = bound(activation_.lo);
    sparsify.hi = bound(activation_.hi);
    stage.lo = -INFINITY;
    stage.hi = INFINITY;
    level_exponent = choose_level_exponent(stage);
  }
  const auto work = [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Worker worker(*this, args, scratch, own, sparsify, level_exponent, zero_point, thread);
    if (sparsify_ != nullptr) return worker.run_rows(begin, end);
    for (std::int64_t i = begin; i < end; ++i) worker.run(i / filter_parts_, i % filter_parts_);
  };
  const std::int64_t units =
      sparsify_ != nullptr ? output_.batch * tile_rows_ : blocks_ * filter_parts_;
  state.pool.parallel_for(units, work);
  store_range(types_, {scratch.ranges, static_cast<std::size_t>(threads_)}, state);
}

}  // namespace qpp
