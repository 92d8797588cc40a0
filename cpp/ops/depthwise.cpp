// SPDX-License-Identifier: Apache-2.0
#include "ops/depthwise.h"

#include <algorithm>
#include <cstring>

#include "base/memory_layout.h"
#include "ops/copy_pixels.h"

namespace qpp {

/// The working memory of one run, in one block.
struct DepthwiseConv2d::Scratch {
  std::int32_t* correction;  // [channels, padded]
  float* multiplier;         // the same
  float* bias;               // the same
  const void** rows;         // [threads][rows of the kernel]
  std::byte* padding;        // a row of it
  std::size_t row_bytes;
  std::size_t bytes;
};

bool DepthwiseConv2d::supports(const Conv2dSpec& spec) {
  return spec.groups == spec.filters && spec.channels == 1 && spec.groups > 1 &&
         (spec.kernel.height + 1) / 2 * spec.kernel.width <= 32;
}

DepthwiseConv2d::DepthwiseConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                                 const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      geometry_{.filters = spec.groups,
                .channels = spec.groups,
                .kernel = spec.kernel,
                .stride = spec.stride,
                .padding = spec.padding,
                .dilation = spec.dilation},
      activation_(spec.activation),
      kernel_(&selection.depthwise(types.dst, types.src)),
      weights_(pack_depthwise_weights(spec.weights.data(), spec.groups, spec.kernel.height,
                                      spec.kernel.width, kernel_->weights, spec.weight_scales)),
      bias_(weights_.scales.size(), 0.0F) {
  plain_ = types.src == DType::f16 && types.dst == DType::f16 && has_unit_scales(weights_);
  std::copy(spec.bias.begin(), spec.bias.end(), bias_.begin());
}

Shape DepthwiseConv2d::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = inputs[0];
  output_ = conv_output_shape(name_, inputs, geometry_);
  return output_;
}

DepthwiseConv2d::Scratch DepthwiseConv2d::lay_out(std::byte* base) const {
  Scratch scratch{};
  MemoryLayout layout(base);
  const auto channels = static_cast<std::int64_t>(weights_.scales.size());
  layout.add(scratch.correction, channels);
  layout.add(scratch.multiplier, channels);
  layout.add(scratch.bias, channels);
  layout.add(scratch.rows, threads_ * geometry_.kernel.height);
  scratch.row_bytes =
      static_cast<std::size_t>(input_.width * input_.stride()) * size_of(types_.src);
  layout.add(scratch.padding, static_cast<std::int64_t>(scratch.row_bytes));
  scratch.bytes = layout.bytes();
  return scratch;
}

std::size_t DepthwiseConv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void DepthwiseConv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  OutputStage stage = fill_output_stage(
      types_, activation_, weights_, bias_, state,
      {.correction = scratch.correction, .multiplier = scratch.multiplier, .bias = scratch.bias});
  // Where the multipliers are all 1, kernels add no more than the bias.
  if (plain_) stage.multiplier = nullptr;
  const int zero = types_.src == DType::qai8
                       ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                       : 0;
  std::memset(scratch.padding, zero, scratch.row_bytes);
  DepthwiseArgs shared{.padding = scratch.padding,
                       .width = input_.width,
                       .left = geometry_.padding.width,
                       .kernel_height = geometry_.kernel.height,
                       .kernel_width = geometry_.kernel.width,
                       .stride = geometry_.stride.width,
                       .dilation = geometry_.dilation.width,
                       .channels = input_.stride(),
                       .pixel_count = output_.width,
                       .weights = weights_.data.data(),
                       .output = &stage};
  const auto* src = static_cast<const std::byte*>(args.inputs[0].data);
  auto* dst = static_cast<std::byte*>(args.output.data);
  const auto dst_row_bytes =
      static_cast<std::size_t>(output_.width * output_.stride()) * size_of(types_.dst);
  state.pool.parallel_for(
      output_.batch * output_.height, [&](std::int64_t begin, std::int64_t end, int thread) {
        DepthwiseArgs own = shared;
        const void** rows = scratch.rows + thread * geometry_.kernel.height;
        own.rows = rows;
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t image = row / output_.height * input_.height;
          const std::int64_t top =
              row % output_.height * geometry_.stride.height - geometry_.padding.height;
          for (std::int64_t ky = 0; ky < geometry_.kernel.height; ++ky) {
            const std::int64_t y = top + ky * geometry_.dilation.height;
            rows[ky] = y >= 0 && y < input_.height
                           ? src + static_cast<std::size_t>(image + y) * scratch.row_bytes
                           : scratch.padding;
          }
          own.dst = dst + static_cast<std::size_t>(row) * dst_row_bytes;
          kernel_->function(own);
        }
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
  // The range of the whole is measured after it.
  Conv2dTypes part_types = types;
  part_types.range_row = -1;
  for (std::int64_t g = 0; g < spec.groups; ++g) {
    const float* weights = spec.weights.data() + static_cast<std::size_t>(g) * size;
    const float* bias = spec.bias.data() + g * filters;
    part.weights.assign(weights, weights + size);
    part.bias.assign(bias, bias + filters);
    if (!spec.weight_scales.empty()) {
      const float* scales = spec.weight_scales.data() + g * filters;
      part.weight_scales.assign(scales, scales + filters);
    }
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
    group_scratch_ = std::max(group_scratch_, group->scratch_bytes());
  }
  output_ = group_output_;
  output_.channels *= groups;
  return output_;
}

/// The working memory of one run, in one block.
struct GroupedConv2d::Scratch {
  std::byte* group;   // of the convolution of a group
  std::byte* source;  // the channels of a group
  std::byte* result;
  std::size_t bytes;
};

GroupedConv2d::Scratch GroupedConv2d::lay_out(std::byte* base) const {
  const auto bytes = [](const Shape& shape, DType dtype) {
    return shape.elements() * static_cast<std::int64_t>(size_of(dtype));
  };
  Scratch scratch{};
  MemoryLayout layout(base);
  layout.add(scratch.group, static_cast<std::int64_t>(group_scratch_));
  layout.add(scratch.source, bytes(group_input_, types_.src));
  layout.add(scratch.result, bytes(group_output_, types_.dst));
  scratch.bytes = layout.bytes();
  return scratch;
}

std::size_t GroupedConv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

std::size_t GroupedConv2d::weight_bytes() const {
  std::size_t bytes = 0;
  for (const auto& group : groups_) bytes += group->weight_bytes();
  return bytes;
}

namespace {

void copy_channels(const PixelCopy& copy, std::int64_t pixels, ThreadPool& pool) {
  pool.parallel_for(pixels, [&copy](std::int64_t begin, std::int64_t end, int /*thread*/) {
    PixelCopy part = copy;
    part.src += begin * copy.src_pixel;
    part.dst += begin * copy.dst_pixel;
    copy_pixels(part, end - begin);
  });
}

}  // namespace

void GroupedConv2d::run(const RunArgs& args, RunState& state) const {
  const auto src_bytes = static_cast<std::int64_t>(size_of(types_.src));
  const auto dst_bytes = static_cast<std::int64_t>(size_of(types_.dst));
  const Scratch scratch = lay_out(args.scratch);
  const TensorView input{.data = scratch.source, .dtype = types_.src, .shape = group_input_};
  std::memset(scratch.source, 0, static_cast<std::size_t>(group_input_.elements() * src_bytes));
  std::memset(args.output.data, 0, static_cast<std::size_t>(output_.elements() * dst_bytes));
  PixelCopy in{.src = static_cast<const std::byte*>(args.inputs[0].data),
               .dst = scratch.source,
               .src_pixel = input_.stride() * src_bytes,
               .dst_pixel = group_input_.stride() * src_bytes,
               .bytes = channels_ * src_bytes};
  PixelCopy out{.src = scratch.result,
                .dst = static_cast<std::byte*>(args.output.data),
                .src_pixel = group_output_.stride() * dst_bytes,
                .dst_pixel = output_.stride() * dst_bytes,
                .bytes = group_output_.channels * dst_bytes};
  for (const auto& group : groups_) {
    copy_channels(in, input_.pixels(), state.pool);
    group->run({.inputs = std::span(&input, 1),
                .output = {.data = scratch.result, .dtype = types_.dst, .shape = group_output_},
                .scratch = scratch.group},
               state);
    copy_channels(out, output_.pixels(), state.pool);
    in.src += in.bytes;
    out.dst += out.bytes;
  }
}

}  // namespace qpp
