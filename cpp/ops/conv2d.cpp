// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/memory_layout.h"
#include "ops/conv2d_tiles.h"
#include "ops/conv2d_wide.h"
#include "ops/conv_output.h"

namespace qpp {

namespace {

constexpr std::int64_t kChunk = 16;  // bytes of a vector

using Gathering = Conv2d::Gathering;

/// The elements that kernels read as one tap. Kernels read channels in steps and multiply with
/// padding where pixels are not a whole number of steps. Copies that join pixels without padding
/// cost time, too.
Gathering choose_gathering(const Conv2dSpec& spec, const ConvKernel& kernel) {
  constexpr std::int64_t kFewChannels = 4;
  constexpr std::int64_t kManyChannels = 64;  // copies are not worth it from here on
  constexpr std::int64_t kCopyMacs = 200;     // that cost as much as the copy of a pixel
  const bool neighbours = spec.kernel.width > 1 && spec.dilation.width == 1;
  if (!neighbours || spec.channels >= kManyChannels) return Gathering::pixels;
  if (spec.channels <= kFewChannels) return Gathering::patches;
  const std::int64_t step = kernel.kr > 1 ? kernel.kr : 8;
  const std::int64_t padding = spec.kernel.width * round_up(spec.channels, step) -
                               round_up(spec.kernel.width * spec.channels, step);
  // Per pixel of the output, which needs one copy for each pixel under the stride.
  const std::int64_t padding_macs = padding * spec.kernel.height * spec.filters;
  const std::int64_t copies = spec.stride.height * spec.stride.width;
  return padding_macs > kCopyMacs * copies ? Gathering::rows : Gathering::pixels;
}

/// Weights OIHW with the channels after the columns, and a column's rows between them for patches.
std::vector<float> join_taps(const Conv2dSpec& spec, Gathering gathering) {
  std::vector<float> joined(spec.weights.size());
  const auto [height, width] = spec.kernel;
  std::size_t from = 0;
  for (std::int64_t f = 0; f < spec.filters; ++f) {
    for (std::int64_t c = 0; c < spec.channels; ++c) {
      for (std::int64_t ky = 0; ky < height; ++ky) {
        for (std::int64_t kx = 0; kx < width; ++kx) {
          const std::int64_t to = gathering == Gathering::rows
                                      ? ((f * width + kx) * spec.channels + c) * height + ky
                                      : ((f * width + kx) * height + ky) * spec.channels + c;
          joined[static_cast<std::size_t>(to)] = spec.weights[from++];
        }
      }
    }
  }
  return joined;
}

/// The type that the kernels write: a dense + sparse destination is made from levels or, with a
/// source in fp16, from fp16.
DType kernel_dst(const Conv2dTypes& types) {
  if (!types.sparse_dst) return types.dst;
  return types.src == DType::qai8 ? DType::qai16 : DType::f16;
}

/// The kernel of `rows` to `dst` that reads the packed weights of `general`, or null.
const ConvKernel* find_sharing_weights(const KernelSelection& selection,
                                       const std::vector<ConvKernel>& rows, DType dst,
                                       const ConvKernel& general) {
  return selection.find(rows, [&](const ConvKernel& row) {
    return row.dst == dst && row.src == general.src && row.weights == general.weights &&
           row.mr == general.mr && row.nr == general.nr && row.kr == general.kr;
  });
}

}  // namespace

Conv2d::Conv2d(const Conv2dSpec& spec, const Conv2dTypes& types, const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      kernel_size_(spec.kernel),
      stride_(spec.stride),
      padding_(spec.padding),
      dilation_(spec.dilation),
      activation_(spec.activation),
      channels_(spec.channels),
      kernel_(&selection.conv(kernel_dst(types), types.src)),
      gathering_(choose_gathering(spec, *kernel_)) {
  if (is_3x3_stride_1(spec) && gathering_ == Gathering::pixels) {
    interior_ = find_sharing_weights(selection, conv3x3s1_kernels(), kernel_->dst, *kernel_);
  }
  const auto is_one = [](const Size2d& size) { return size.height == 1 && size.width == 1; };
  pointwise_ = is_one(kernel_size_) && is_one(stride_) && padding_.rows() == 0 &&
               padding_.columns() == 0 && !types.sparse_src;
  const std::int64_t taps = spec.kernel.height * spec.kernel.width;
  const std::int64_t packed_taps = gathering_ == Gathering::pixels ? taps
                                   : gathering_ == Gathering::rows ? spec.kernel.height
                                                                   : 1;
  weights_ = pack_conv_weights(
      gathering_ == Gathering::pixels ? spec.weights.data() : join_taps(spec, gathering_).data(),
      spec.filters, spec.channels * (taps / packed_taps), packed_taps, kernel_->weights,
      kernel_->nr, kernel_->kr, /*scaled=*/true, spec.weight_scales);
  plain_ = types.src == DType::f16 && kernel_->dst == DType::f16 && has_unit_scales(weights_);
  bias_.assign(weights_.scales.size(), 0.0F);
  std::copy(spec.bias.begin(), spec.bias.end(), bias_.begin());
  if (types.sparse_src) {
    sparse_part_ = std::make_unique<SparsePart>(spec, weights_.scales, selection);
  }
  if (types.sparse_dst) sparsify_ = &selection.sparsify(DType::qai8, kernel_->dst);
  if (types.src == DType::qai8 && (types.sparse_src || types.sparse_dst)) {
    wide_kernel_ = find_sharing_weights(selection, conv_kernels(), DType::f16, *kernel_);
    wide_sparsify_ = &selection.sparsify(DType::qai8, DType::f16);
  }
}

Conv2d::~Conv2d() = default;

Shape Conv2d::prepare(std::span<const Shape> inputs, int threads) {
  constexpr auto kLine = static_cast<std::int64_t>(kAlignment);
  threads_ = threads;
  input_ = inputs[0];
  output_ = conv_output_shape(name_, inputs,
                              {.filters = weights_.filters,
                               .channels = channels_,
                               .kernel = kernel_size_,
                               .stride = stride_,
                               .padding = padding_,
                               .dilation = dilation_});
  const std::int64_t effective_height = (kernel_size_.height - 1) * dilation_.height + 1;
  const std::int64_t columns =
      padding_.width + std::max(input_.width, (output_.width - 1) * stride_.width +
                                                  kernel_size_.width - padding_.width);
  const std::int64_t rows_of_tile = (kernel_->mr - 2) / output_.width + 2;
  const bool patches = gathering_ == Gathering::patches;
  strips_ = {.rows = patches ? kernel_size_.height : 1,
             .row_step = patches ? stride_.height : 1,
             .per_output_row = patches ? 1 : stride_.height,
             .per_image = patches ? output_.height
                                  : (output_.height - 1) * stride_.height + effective_height,
             .kept = rows_of_tile * (patches ? 1 : std::max(stride_.height, effective_height))};
  strips_.column_bytes = strips_.rows * source_bytes(channels_);
  // Kernels read, and ignore, elements after the last pixel.
  strips_.bytes = round_up(columns * strips_.column_bytes + 2 * kChunk, kLine);
  if (sparse_part_ != nullptr) sparse_part_->prepare(input_, output_, kernel_->mr);
  return output_;
}

Conv2d::Scratch Conv2d::lay_out(std::byte* base) const {
  Scratch scratch{};
  MemoryLayout layout(base);
  const auto filters = static_cast<std::int64_t>(weights_.scales.size());
  const auto sparse_bytes =
      static_cast<std::int64_t>(sparse_part_ == nullptr ? 0 : sparse_part_->scratch_bytes());
  layout.add(scratch.correction, filters);
  layout.add(scratch.multiplier, filters);
  layout.add(scratch.bias, filters);
  layout.add(scratch.residual_factor, types_.residual ? filters : 0);
  layout.add(scratch.border, border_pixels() * source_bytes(input_.stride()));
  layout.add(scratch.ranges, threads_);
  layout.add(scratch.pixels, threads_ * weights_.taps * kernel_->mr);
  layout.add(scratch.rows, threads_ * kernel_size_.height);
  layout.add(scratch.copies, threads_ * copy_bytes());
  layout.add(scratch.sparse, threads_ * sparse_bytes);
  layout.add(scratch.levels, threads_ * levels_bytes());
  layout.add(scratch.wide,
             wide_kernel_ == nullptr
                 ? 0
                 : threads_ * static_cast<std::int64_t>(WideTile::scratch_bytes(*this)));
  scratch.bytes = layout.bytes();
  return scratch;
}

/// Bytes of so many source elements.
std::int64_t Conv2d::source_bytes(std::int64_t elements) const {
  return elements * static_cast<std::int64_t>(size_of(types_.src));
}

/// A pixel, or a row for strips.
std::int64_t Conv2d::border_pixels() const {
  return gathering_ == Gathering::pixels ? 1 : input_.width;
}

/// The size of the copies of a thread: its strips, or the source of an interior tile.
std::int64_t Conv2d::copy_bytes() const {
  if (gathering_ != Gathering::pixels) return strips_.kept * strips_.bytes;
  if (interior_ == nullptr) return 0;
  return round_up(3 * (kernel_->mr + 2) * source_bytes(input_.stride()),
                  static_cast<std::int64_t>(kAlignment));
}

std::int64_t Conv2d::levels_bytes() const {
  if (sparsify_ == nullptr) return 0;
  const auto element_bytes = static_cast<std::int64_t>(size_of(kernel_->dst));
  return round_up<std::int64_t>(kernel_->mr * output_.stride() * element_bytes, kAlignment);
}

std::size_t Conv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void Conv2d::fill_border(const Scratch& scratch, const RunState& state) const {
  const int zero = types_.src == DType::qai8
                       ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                       : 0;
  std::memset(scratch.border, zero,
              static_cast<std::size_t>(border_pixels() * source_bytes(input_.stride())));
}

void Conv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  Conv2dTypes stage_types = types_;
  if (kernel_->dst == DType::f16) stage_types.dst = DType::f16;
  OutputStage stage = fill_output_stage(stage_types, activation_, weights_, bias_, state,
                                        {.correction = scratch.correction,
                                         .multiplier = scratch.multiplier,
                                         .bias = scratch.bias,
                                         .residual_factor = scratch.residual_factor});
  // Where the multipliers are all 1, kernels add no more than the bias.
  if (plain_) stage.multiplier = nullptr;
  fill_border(scratch, state);
  const auto* src = static_cast<const std::byte*>(args.inputs[0].data);
  std::fill_n(scratch.ranges, threads_, Range{});

  SparsifyArgs sparsify;
  if (sparsify_ != nullptr) {
    sparsify = bounds_of_levels(stage, state.qparams[static_cast<std::size_t>(types_.dst_row)]);
  }

  // Threads share out tiles, or as many whole rows, of which each has its list of outliers, as are
  // whole tiles: which pixels are a tile must not depend on the number of threads.
  const std::int64_t mr = kernel_->mr;
  const std::int64_t unit = sparsify_ != nullptr ? std::lcm(output_.width, mr) : mr;
  const std::int64_t units = (output_.pixels() + unit - 1) / unit;
  state.pool.parallel_for(units, [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Tiles(*this, src, args, state, scratch, own, sparsify, thread)
        .run(begin * unit, std::min(end * unit, output_.pixels()));
  });

  store_range(types_, {scratch.ranges, static_cast<std::size_t>(threads_)}, state);
}

/// Levels saturate where the kernel's bounds are within those of the activation.
SparsifyArgs Conv2d::bounds_of_levels(const OutputStage& stage, const QParams& row) const {
  SparsifyArgs args = sparsify_bounds(row);
  if (sparsify_->src != DType::qai16) return args;
  const float offset = stage.magic_bias_accumulators ? 0.0F : static_cast<float>(stage.zero_point);
  args.lo = static_cast<std::int32_t>(std::nearbyint(stage.lo + offset));
  args.hi = static_cast<std::int32_t>(std::nearbyint(stage.hi + offset));
  const float step = row.inverse_scale;
  const auto zero_point = static_cast<float>(row.zero_point);
  const bool ends_below = std::nearbyint(activation_.lo * step) + zero_point < stage.lo + offset;
  const bool ends_above = std::nearbyint(activation_.hi * step) + zero_point > stage.hi + offset;
  args.saturation_lo = ends_below ? args.lo : INT32_MIN;
  args.saturation_hi = ends_above ? args.hi : INT32_MAX;
  return args;
}

std::size_t Conv2d::weight_bytes() const {
  return weights_.data.size() + (sparse_part_ == nullptr ? 0 : sparse_part_->weight_bytes());
}

std::string Conv2d::kernel() const {
  return interior_ != nullptr ? interior_->info.name : kernel_->info.name;
}

}  // namespace qpp
