// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d.h"

#include <algorithm>
#include <cstring>

#include "ops/conv_output.h"

namespace qpp {

bool is_3x3_stride_1(const Conv2dSpec& spec) {
  return spec.kernel.height == 3 && spec.kernel.width == 3 && spec.stride.height == 1 &&
         spec.stride.width == 1 && spec.dilation.height == 1 && spec.dilation.width == 1;
}

/// The working memory of one run, carved from one block.
struct Conv2d::Scratch {
  std::int32_t* correction;  // [filters, padded to nr]
  float* multiplier;         // the same
  float* bias;               // the same
  std::byte* border;         // one source pixel of zero points
  Range* ranges;             // [threads]
  const void** pixels;       // [threads][taps * mr]
  std::size_t bytes;
};

/// Walks the output in tiles of mr successive pixels, over the ends of rows and images.
class Conv2d::Tiles {
 public:
  Tiles(const Conv2d& conv, const RunArgs& run, const Scratch& scratch, const OutputStage& stage,
        int thread)
      : conv_(conv),
        src_(static_cast<const std::byte*>(run.inputs[0].data)),
        border_(scratch.border) {
    const std::int64_t mr = conv.kernel_->mr;
    const std::int64_t taps = conv.weights_.taps;
    pixels_ = scratch.pixels + thread * taps * mr;
    pixel_bytes_ = conv.input_.stride() * static_cast<std::int64_t>(size_of(conv.types_.src));
    args_.pixels = pixels_;
    args_.src_pixel_stride = conv.input_.stride();
    args_.src_row_stride = conv.input_.width * conv.input_.stride();
    args_.taps = taps;
    args_.channels = conv.weights_.channels;
    args_.filters = conv.output_.stride();
    args_.weights = conv.weights_.data.data();
    args_.dst_stride = conv.output_.stride();
    args_.output = &stage;
    dst_ = static_cast<std::byte*>(run.output.data);
    dst_pixel_bytes_ = conv.output_.stride() * static_cast<std::int64_t>(size_of(conv.types_.dst));
  }

  void run(std::int64_t tile) {
    const std::int64_t mr = conv_.kernel_->mr;
    const std::int64_t first = tile * mr;
    args_.pixel_count = std::min(mr, conv_.output_.pixels() - first);
    args_.dst = dst_ + first * dst_pixel_bytes_;
    const std::int64_t x = first % conv_.output_.width;
    const std::int64_t row = first / conv_.output_.width;
    const std::int64_t y = row % conv_.output_.height;
    const std::int64_t n = row / conv_.output_.height;
    const std::int64_t top = y - conv_.padding_.height;
    const std::int64_t left = x - conv_.padding_.width;
    const bool interior = conv_.interior_ != nullptr && args_.pixel_count == mr &&
                          x + mr <= conv_.output_.width && top >= 0 && left >= 0 &&
                          top + 2 < conv_.input_.height && left + mr + 1 < conv_.input_.width;
    if (interior) {
      args_.src = source(n, top, left);
      conv_.interior_->function(args_);
    } else {
      gather(n, y, x);
      conv_.kernel_->function(args_);
    }
  }

 private:
  [[nodiscard]] const std::byte* source(std::int64_t n, std::int64_t y, std::int64_t x) const {
    return src_ + ((n * conv_.input_.height + y) * conv_.input_.width + x) * pixel_bytes_;
  }

  /// Points every tap of every pixel, from output pixel (n, y, x) on, at its source or at the
  /// border.
  void gather(std::int64_t n, std::int64_t y, std::int64_t x) {
    const std::int64_t mr = conv_.kernel_->mr;
    for (std::int64_t p = 0; p < mr; ++p) {
      const void** pointer = pixels_ + p;
      for (std::int64_t ky = 0; ky < conv_.kernel_size_.height; ++ky) {
        const std::int64_t src_y =
            y * conv_.stride_.height - conv_.padding_.height + ky * conv_.dilation_.height;
        const bool row_inside = src_y >= 0 && src_y < conv_.input_.height;
        for (std::int64_t kx = 0; kx < conv_.kernel_size_.width; ++kx) {
          const std::int64_t src_x =
              x * conv_.stride_.width - conv_.padding_.width + kx * conv_.dilation_.width;
          const bool inside = row_inside && src_x >= 0 && src_x < conv_.input_.width;
          *pointer = inside ? source(n, src_y, src_x) : border_;
          pointer += mr;
        }
      }
      if (p + 1 >= args_.pixel_count) continue;  // beyond the last pixel, its sources are repeated
      if (++x == conv_.output_.width) {
        x = 0;
        if (++y == conv_.output_.height) {
          y = 0;
          ++n;
        }
      }
    }
  }

  const Conv2d& conv_;
  const std::byte* src_;
  const std::byte* border_;
  std::byte* dst_;
  const void** pixels_;
  std::int64_t pixel_bytes_;
  std::int64_t dst_pixel_bytes_;
  ConvArgs args_;
};

Conv2d::Conv2d(const Conv2dSpec& spec, const Conv2dTypes& types, const KernelSelection& selection)
    : name_(spec.name),
      types_(types),
      kernel_size_(spec.kernel),
      stride_(spec.stride),
      padding_(spec.padding),
      dilation_(spec.dilation),
      activation_(spec.activation),
      channels_(spec.channels),
      kernel_(&selection.conv(types.dst, types.src)),
      interior_(is_3x3_stride_1(spec) ? selection.conv3x3s1(*kernel_) : nullptr) {
  weights_ = pack_conv_weights(spec.weights.data(), spec.filters, spec.channels,
                               spec.kernel.height * spec.kernel.width, kernel_->weights,
                               kernel_->nr, kernel_->kr);
  bias_.assign(weights_.scales.size(), 0.0F);
  std::copy(spec.bias.begin(), spec.bias.end(), bias_.begin());
}

Shape Conv2d::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = inputs[0];
  output_ = conv_output_shape(name_, input_,
                              {.filters = weights_.filters,
                               .channels = channels_,
                               .kernel = kernel_size_,
                               .stride = stride_,
                               .padding = padding_,
                               .dilation = dilation_});
  return output_;
}

Conv2d::Scratch Conv2d::lay_out(std::byte* base) const {
  Scratch scratch{};
  std::size_t offset = 0;
  const auto take = [&](auto*& pointer, std::size_t bytes) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + offset);
    offset += round_up(bytes, kAlignment);
  };
  const std::size_t filters = weights_.scales.size();
  const auto threads = static_cast<std::size_t>(threads_);
  take(scratch.correction, filters * sizeof(std::int32_t));
  take(scratch.multiplier, filters * sizeof(float));
  take(scratch.bias, filters * sizeof(float));
  take(scratch.border, static_cast<std::size_t>(input_.stride()) * size_of(types_.src));
  take(scratch.ranges, threads * sizeof(Range));
  take(scratch.pixels,
       threads * static_cast<std::size_t>(weights_.taps * kernel_->mr) * sizeof(void*));
  scratch.bytes = offset;
  return scratch;
}

std::size_t Conv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void Conv2d::fill_border(const Scratch& scratch, const RunState& state) const {
  const int zero = types_.src == DType::qai8
                       ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                       : 0;
  std::memset(scratch.border, zero,
              static_cast<std::size_t>(input_.stride()) * size_of(types_.src));
}

void Conv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  const OutputStage stage = fill_output_stage(
      types_, activation_, weights_, bias_, state,
      {.correction = scratch.correction, .multiplier = scratch.multiplier, .bias = scratch.bias});
  fill_border(scratch, state);
  std::fill_n(scratch.ranges, threads_, Range{});

  const std::int64_t tiles = (output_.pixels() + kernel_->mr - 1) / kernel_->mr;
  state.pool.parallel_for(tiles, [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Tiles walk(*this, args, scratch, own, thread);
    for (std::int64_t tile = begin; tile < end; ++tile) walk.run(tile);
  });

  if (types_.range_row < 0) return;
  Range& range = state.ranges[static_cast<std::size_t>(types_.range_row)] = Range{};
  for (int thread = 0; thread < threads_; ++thread) {
    widen(range, scratch.ranges[thread]);
  }
}

std::string Conv2d::kernel() const {
  return interior_ != nullptr ? interior_->info.name : kernel_->info.name;
}

}  // namespace qpp
