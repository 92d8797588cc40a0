// SPDX-License-Identifier: Apache-2.0
#include "ops/depthwise.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ops/conv_output.h"

namespace qpp {

/// The working memory of one run, carved from one block.
struct DepthwiseConv2d::Scratch {
  std::int32_t* correction;  // [channels, padded]
  float* multiplier;         // the same
  float* bias;               // the same
  std::byte* rows;           // [threads][4] rows with their padding, the last all padding
  std::size_t row_bytes;
  std::size_t bytes;
};

/// Walks output rows of one thread. A source row is copied once, between its padding.
class DepthwiseConv2d::Rows {
 public:
  Rows(const DepthwiseConv2d& conv, const RunArgs& run, const Scratch& scratch,
       const OutputStage& stage, int zero, int thread)
      : conv_(conv), scratch_(scratch) {
    src_ = static_cast<const std::byte*>(run.inputs[0].data);
    dst_ = static_cast<std::byte*>(run.output.data);
    rows_ = scratch.rows + static_cast<std::size_t>(thread) * 4 * scratch.row_bytes;
    // Padding, and what nothing overwrites of it.
    std::memset(rows_, zero, 4 * scratch.row_bytes);
    args_.stride = conv.stride_;
    args_.channels = conv.input_.stride();
    args_.pixel_count = conv.output_.width;
    args_.weights = conv.weights_.data.data();
    args_.output = &stage;
  }

  void run(std::int64_t row) {
    const std::int64_t n = row / conv_.output_.height;
    const std::int64_t top = row % conv_.output_.height * conv_.stride_ - conv_.padding_.height;
    for (std::int64_t ky = 0; ky < 3; ++ky) args_.rows[ky] = source(n, top + ky);
    const std::int64_t bytes = conv_.output_.width * conv_.output_.stride() *
                               static_cast<std::int64_t>(size_of(conv_.types_.dst));
    args_.dst = dst_ + row * bytes;
    conv_.kernel_->function(args_);
  }

 private:
  /// Row y of image n: in the slot y modulo 3, where it may already be.
  const std::byte* source(std::int64_t n, std::int64_t y) {
    const Shape& input = conv_.input_;
    if (y < 0 || y >= input.height) return rows_ + 3 * scratch_.row_bytes;
    const std::int64_t slot = y % 3;
    std::byte* copy = rows_ + static_cast<std::size_t>(slot) * scratch_.row_bytes;
    const std::int64_t index = n * input.height + y;
    if (std::exchange(held_[slot], index) == index) return copy;
    const std::int64_t pixel =
        input.stride() * static_cast<std::int64_t>(size_of(conv_.types_.src));
    std::memcpy(copy + conv_.padding_.width * pixel, src_ + index * input.width * pixel,
                static_cast<std::size_t>(input.width * pixel));
    return copy;
  }

  const DepthwiseConv2d& conv_;
  const Scratch& scratch_;
  const std::byte* src_;
  std::byte* dst_;
  std::byte* rows_;
  std::array<std::int64_t, 3> held_{-1, -1, -1};
  DepthwiseArgs args_;
};

namespace {

/// Kernels of at most 3x3 as those of 3x3, [channels][3][3], zeros below and on the right.
std::vector<float> extend_to_3x3(const Conv2dSpec& spec) {
  std::vector<float> kernels(static_cast<std::size_t>(spec.groups * 9));
  const float* weight = spec.weights.data();
  for (std::int64_t c = 0; c < spec.groups; ++c) {
    for (std::int64_t ky = 0; ky < spec.kernel.height; ++ky) {
      for (std::int64_t kx = 0; kx < spec.kernel.width; ++kx)
        kernels[static_cast<std::size_t>(c * 9 + ky * 3 + kx)] = *weight++;
    }
  }
  return kernels;
}

/// What such zeros reach beyond the image is padding.
Padding extend_padding(const Conv2dSpec& spec) {
  Padding padding = spec.padding;
  padding.more_below += 3 - spec.kernel.height;
  padding.more_right += 3 - spec.kernel.width;
  return padding;
}

}  // namespace

bool DepthwiseConv2d::supports(const Conv2dSpec& spec) {
  return spec.groups == spec.filters && spec.channels == 1 && spec.groups > 1 &&
         spec.kernel.height <= 3 && spec.kernel.width <= 3 && spec.dilation.height == 1 &&
         spec.dilation.width == 1 && spec.stride.height == spec.stride.width &&
         spec.stride.width <= 2;
}

DepthwiseConv2d::DepthwiseConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                                 const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      stride_(spec.stride.width),
      padding_(extend_padding(spec)),
      activation_(spec.activation),
      channels_(spec.groups),
      kernel_(&selection.depthwise3x3(types.dst, types.src)),
      weights_(pack_depthwise_weights(extend_to_3x3(spec).data(), spec.groups, kernel_->weights)),
      bias_(weights_.scales.size(), 0.0F) {
  std::copy(spec.bias.begin(), spec.bias.end(), bias_.begin());
}

Shape DepthwiseConv2d::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = inputs[0];
  output_ = conv_output_shape(name_, input_,
                              {.filters = channels_,
                               .channels = channels_,
                               .kernel = {.height = 3, .width = 3},
                               .stride = {.height = stride_, .width = stride_},
                               .padding = padding_,
                               .dilation = {}});
  return output_;
}

DepthwiseConv2d::Scratch DepthwiseConv2d::lay_out(std::byte* base) const {
  Scratch scratch{};
  std::size_t offset = 0;
  const auto take = [&](auto*& pointer, std::size_t bytes) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + offset);
    offset += round_up(bytes, kAlignment);
  };
  const std::size_t channels = weights_.scales.size();
  take(scratch.correction, channels * sizeof(std::int32_t));
  take(scratch.multiplier, channels * sizeof(float));
  take(scratch.bias, channels * sizeof(float));
  scratch.row_bytes =
      round_up(static_cast<std::size_t>((input_.width + padding_.columns()) * input_.stride()) *
                   size_of(types_.src),
               kAlignment);
  take(scratch.rows, static_cast<std::size_t>(threads_) * 4 * scratch.row_bytes);
  scratch.bytes = offset;
  return scratch;
}

std::size_t DepthwiseConv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void DepthwiseConv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  OutputStage stage = fill_output_stage(
      types_, activation_, weights_, bias_, state,
      {.correction = scratch.correction, .multiplier = scratch.multiplier, .bias = scratch.bias});
  // Where the multipliers are all 1, kernels add no more than the bias.
  if (types_.src == DType::f16 && types_.dst == DType::f16) stage.multiplier = nullptr;
  const int zero = types_.src == DType::qai8
                       ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                       : 0;
  state.pool.parallel_for(output_.batch * output_.height,
                          [&](std::int64_t begin, std::int64_t end, int thread) {
                            Rows rows(*this, args, scratch, stage, zero, thread);
                            for (std::int64_t row = begin; row < end; ++row) rows.run(row);
                          });
}

GroupedConv2d::GroupedConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                             const KernelSelection& selection)
    : name_(spec.name), types_(types), channels_(spec.channels) {
  const std::int64_t filters = spec.filters / spec.groups;
  const auto size =
      static_cast<std::size_t>(filters * spec.channels * spec.kernel.height * spec.kernel.width);
  Conv2dSpec part = spec;
  part.filters = filters;
  part.groups = 1;
  // The range of the whole is measured behind it.
  Conv2dTypes part_types = types;
  part_types.range_row = -1;
  for (std::int64_t g = 0; g < spec.groups; ++g) {
    const float* weights = spec.weights.data() + static_cast<std::size_t>(g) * size;
    const float* bias = spec.bias.data() + g * filters;
    part.weights.assign(weights, weights + size);
    part.bias.assign(bias, bias + filters);
    groups_.push_back(std::make_unique<Conv2d>(part, part_types, selection));
  }
}

Shape GroupedConv2d::prepare(std::span<const Shape> inputs, int threads) {
  input_ = inputs[0];
  const auto groups = static_cast<std::int64_t>(groups_.size());
  QPP_CHECK(input_.channels == channels_ * groups, ShapeError, "node '", name_,
            "' (conv2d): expected an input of ", channels_ * groups, " channels, got ",
            to_string(input_));
  group_input_ = input_;
  group_input_.channels = channels_;
  group_scratch_ = 0;
  for (const auto& group : groups_) {
    group_output_ = group->prepare(std::span(&group_input_, 1), threads);
    group_scratch_ = std::max(group_scratch_, round_up(group->scratch_bytes(), kAlignment));
  }
  output_ = group_output_;
  output_.channels *= groups;
  return output_;
}

std::size_t GroupedConv2d::scratch_bytes() const {
  const auto bytes = [](const Shape& shape, DType dtype) {
    return round_up(static_cast<std::size_t>(shape.elements()) * size_of(dtype), kAlignment);
  };
  return group_scratch_ + bytes(group_input_, types_.src) + bytes(group_output_, types_.dst);
}

std::size_t GroupedConv2d::weight_bytes() const {
  std::size_t bytes = 0;
  for (const auto& group : groups_) bytes += group->weight_bytes();
  return bytes;
}

namespace {

/// Copies `channels` of every pixel between tensors that hold them at other places.
struct ChannelCopy {
  const std::byte* src;
  std::byte* dst;
  std::size_t src_pixel;
  std::size_t dst_pixel;
  std::size_t bytes;

  void run(std::int64_t pixels, ThreadPool& pool) const {
    pool.parallel_for(pixels, [this](std::int64_t begin, std::int64_t end, int /*thread*/) {
      for (auto p = static_cast<std::size_t>(begin); p < static_cast<std::size_t>(end); ++p)
        std::memcpy(dst + p * dst_pixel, src + p * src_pixel, bytes);
    });
  }
};

}  // namespace

void GroupedConv2d::run(const RunArgs& args, RunState& state) const {
  const std::size_t src_bytes = size_of(types_.src);
  const std::size_t dst_bytes = size_of(types_.dst);
  const auto pixel = [](const Shape& shape, std::size_t bytes) {
    return static_cast<std::size_t>(shape.stride()) * bytes;
  };
  std::byte* source = args.scratch + group_scratch_;
  std::byte* result =
      source + round_up(static_cast<std::size_t>(group_input_.elements()) * src_bytes, kAlignment);
  const TensorView input{.data = source, .dtype = types_.src, .shape = group_input_};
  std::memset(source, 0, static_cast<std::size_t>(group_input_.elements()) * src_bytes);
  std::memset(args.output.data, 0, static_cast<std::size_t>(output_.elements()) * dst_bytes);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const std::size_t channels = static_cast<std::size_t>(channels_) * src_bytes;
    const std::size_t filters = static_cast<std::size_t>(group_output_.channels) * dst_bytes;
    ChannelCopy{.src = static_cast<const std::byte*>(args.inputs[0].data) + g * channels,
                .dst = source,
                .src_pixel = pixel(input_, src_bytes),
                .dst_pixel = pixel(group_input_, src_bytes),
                .bytes = channels}
        .run(input_.pixels(), state.pool);
    groups_[g]->run({.inputs = std::span(&input, 1),
                     .output = {.data = result, .dtype = types_.dst, .shape = group_output_},
                     .scratch = args.scratch},
                    state);
    ChannelCopy{.src = result,
                .dst = static_cast<std::byte*>(args.output.data) + g * filters,
                .src_pixel = pixel(group_output_, dst_bytes),
                .dst_pixel = pixel(output_, dst_bytes),
                .bytes = filters}
        .run(output_.pixels(), state.pool);
  }
}

}  // namespace qpp
