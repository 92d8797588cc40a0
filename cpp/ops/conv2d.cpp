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

namespace {

constexpr std::int64_t kTile = 8;    // pixels of a NEON tile
constexpr std::int64_t kChunk = 16;  // bytes of a vector

using Gathering = Conv2d::Gathering;

/// What the kernels shall see as a tap. Pixels are whole vectors, of which a few channels fill only
/// a part.
Gathering choose_gathering(const Conv2dSpec& spec) {
  constexpr std::int64_t kFewChannels = 4;
  constexpr std::int64_t kManyChannels = 64;  // copies are not worth it from here on
  const bool neighbours = spec.kernel.width > 1 && spec.dilation.width == 1;
  if (!neighbours || spec.channels % 8 == 0 || spec.channels >= kManyChannels) {
    return Gathering::pixels;
  }
  return spec.channels <= kFewChannels ? Gathering::patches : Gathering::rows;
}

/// Weights OIHW with the channels behind the columns, and behind the rows as well for patches.
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
                                      : ((f * height + ky) * width + kx) * spec.channels + c;
          joined[static_cast<std::size_t>(to)] = spec.weights[from++];
        }
      }
    }
  }
  return joined;
}

/// pointers[i] = first + i * step, without a check of what they point to.
void fill_pointers(const void** pointers, std::intptr_t first, std::int64_t step,
                   std::int64_t count) {
  if (count == kTile) {  // a known count makes a loop that costs a few cycles
    for (int i = 0; i < kTile; ++i) {
      pointers[i] = reinterpret_cast<const void*>(first + i * step);  // NOLINT(*-no-int-to-ptr)
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    pointers[i] = reinterpret_cast<const void*>(first + i * step);  // NOLINT(*-no-int-to-ptr)
  }
}

/// Copies whole chunks, the last of which may reach up to kChunk - 1 bytes beyond `bytes` on both
/// sides: a copy of a known size is two instructions.
void copy_chunks(std::byte* dst, const std::byte* src, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += kChunk) std::memcpy(dst + i, src + i, kChunk);
}

}  // namespace

/// The working memory of one run, carved from one block.
struct Conv2d::Scratch {
  std::int32_t* correction;  // [filters, padded to nr]
  float* multiplier;         // the same
  float* bias;               // the same
  std::byte* border;         // one source pixel of zero points
  Range* ranges;             // [threads]
  const void** pixels;       // [threads][taps * mr]
  std::byte* packed;         // the source with its border, channels side by side; or empty
  std::byte* patches;        // [threads][patch_bytes()]
  std::size_t bytes;
};

/// Walks the output in tiles of mr successive pixels, over the ends of rows and images.
class Conv2d::Tiles {
 public:
  Tiles(const Conv2d& conv, const std::byte* src, std::byte* dst, const Scratch& scratch,
        const OutputStage& stage, int thread)
      : conv_(conv),
        view_(conv.view_),
        mr_(conv.kernel_->mr),
        src_(src),
        border_(scratch.border),
        dst_(dst),
        pixels_(scratch.pixels + thread * conv.weights_.taps * conv.kernel_->mr),
        patches_(scratch.patches + thread * conv.patch_bytes()) {
    const auto element_bytes = static_cast<std::int64_t>(size_of(conv.types_.src));
    args_.pixels = pixels_;
    args_.src_pixel_stride = view_.pixel_bytes / element_bytes;
    args_.taps = conv.weights_.taps;
    args_.channels = conv.weights_.channels;
    args_.filters = conv.output_.stride();
    args_.weights = conv.weights_.data.data();
    args_.dst_stride = conv.output_.stride();
    args_.output = &stage;
    dst_pixel_bytes_ = conv.output_.stride() * static_cast<std::int64_t>(size_of(conv.types_.dst));
    if (conv.gathering_ == Gathering::patches) {
      for (std::int64_t p = 0; p < mr_; ++p) pixels_[p] = patches_ + p * conv.patch_pitch();
    }
  }

  void run(std::int64_t begin, std::int64_t end) {
    std::int64_t first = begin * mr_;
    Place place{.x = first % conv_.output_.width, .y = first / conv_.output_.width};
    place.n = place.y / conv_.output_.height;
    place.y %= conv_.output_.height;
    for (std::int64_t tile = begin; tile < end; ++tile) {
      args_.pixel_count = std::min(mr_, conv_.output_.pixels() - first);
      args_.dst = dst_ + first * dst_pixel_bytes_;
      if (conv_.gathering_ == Gathering::patches) {
        copy_patches(place);
        conv_.kernel_->function(args_);
      } else if (conv_.interior_ != nullptr && args_.pixel_count == mr_ &&
                 place.x + mr_ <= conv_.output_.width) {
        find_source(place);
        conv_.interior_->function(args_);
        advance(place, mr_);
      } else {
        gather(place);
        conv_.kernel_->function(args_);
      }
      first += mr_;
    }
  }

 private:
  /// An output pixel.
  struct Place {
    std::int64_t x = 0;
    std::int64_t y = 0;
    std::int64_t n = 0;
  };

  /// Moves on by `count` pixels, at most to the start of the next row.
  void advance(Place& place, std::int64_t count) const {
    place.x += count;
    if (place.x < conv_.output_.width) return;
    place.x = 0;
    if (++place.y < conv_.output_.height) return;
    place.y = 0;
    ++place.n;
  }

  /// Copies the sources of every pixel, from `place` on, side by side; `place` becomes the pixel
  /// behind the tile.
  void copy_patches(Place& place) {
    const std::int64_t row_bytes = view_.width * view_.pixel_bytes;
    const std::int64_t run_bytes = conv_.kernel_size_.width * view_.pixel_bytes;
    for (std::int64_t p = 0; p < args_.pixel_count; ++p) {
      const std::byte* src = src_ +
                             (place.n * view_.height + place.y * conv_.stride_.height) * row_bytes +
                             place.x * conv_.stride_.width * view_.pixel_bytes;
      std::byte* patch = patches_ + p * conv_.patch_pitch();
      for (std::int64_t ky = 0; ky < conv_.kernel_size_.height; ++ky) {
        copy_chunks(patch, src, run_bytes);
        patch += run_bytes;
        src += conv_.dilation_.height * row_bytes;
      }
      advance(place, 1);
    }
  }

  /// The source of an interior tile; one that reaches over the border is copied, and the border
  /// filled in, since the general kernel takes longer than that.
  void find_source(const Place& place) {
    const std::int64_t y = place.y - view_.padding.height;
    const std::int64_t x = place.x - view_.padding.width;
    const std::int64_t width = mr_ + 2;
    const std::byte* src =
        src_ + ((place.n * view_.height + y) * view_.width + x) * view_.pixel_bytes;
    if (y >= 0 && y + 3 <= view_.height && x >= 0 && x + width <= view_.width) {
      args_.src = src;
      args_.src_row_stride = view_.width * args_.src_pixel_stride;
      return;
    }
    const std::int64_t begin = std::clamp<std::int64_t>(-x, 0, width);
    const std::int64_t end = std::clamp(view_.width - x, begin, width);
    std::byte* dst = patches_;
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      const bool inside = y + ky >= 0 && y + ky < view_.height;
      fill_zero(dst, inside ? begin : width);
      if (inside) {
        const std::byte* row = src + (ky * view_.width + begin) * view_.pixel_bytes;
        std::memcpy(dst + begin * view_.pixel_bytes, row,
                    static_cast<std::size_t>((end - begin) * view_.pixel_bytes));
        fill_zero(dst + end * view_.pixel_bytes, width - end);
      }
      dst += width * view_.pixel_bytes;
    }
    args_.src = patches_;
    args_.src_row_stride = width * args_.src_pixel_stride;
  }

  void fill_zero(std::byte* dst, std::int64_t pixels) const {
    std::memset(dst, static_cast<int>(*border_),
                static_cast<std::size_t>(pixels * view_.pixel_bytes));
  }

  /// Points every tap of every pixel, from `place` on, at its source or at the border; `place`
  /// becomes the pixel behind the tile.
  void gather(Place& place) {
    for (std::int64_t p = 0; p < mr_;) {
      if (p >= args_.pixel_count) {  // any valid sources
        for (std::int64_t tap = 0; tap < args_.taps; ++tap) {
          pixels_[tap * mr_ + p] = pixels_[tap * mr_];
        }
        ++p;
        continue;
      }
      const std::int64_t count = std::min(args_.pixel_count - p, conv_.output_.width - place.x);
      gather_in_row(place, p, count);
      advance(place, count);
      p += count;
    }
  }

  /// The same for `count` pixels of one row, the first of which is pixel p of the tile.
  void gather_in_row(const Place& place, std::int64_t p, std::int64_t count) {
    const std::int64_t step = conv_.stride_.width * view_.pixel_bytes;
    const void** pointers = pixels_ + p;
    for (std::int64_t ky = 0; ky < view_.kernel.height; ++ky) {
      const std::int64_t y =
          place.y * conv_.stride_.height - view_.padding.height + ky * conv_.dilation_.height;
      const bool row_inside = y >= 0 && y < view_.height;
      const auto row = reinterpret_cast<std::intptr_t>(src_) +
                       (place.n * view_.height + y) * view_.width * view_.pixel_bytes;
      for (std::int64_t kx = 0; kx < view_.kernel.width; ++kx, pointers += mr_) {
        const std::int64_t x =
            place.x * conv_.stride_.width - view_.padding.width + kx * conv_.dilation_.width;
        if (!row_inside) {
          fill_pointers(pointers, reinterpret_cast<std::intptr_t>(border_), 0, count);
          continue;
        }
        fill_pointers(pointers, row + x * view_.pixel_bytes, step, count);
        // At most a few pixels at the ends of a row lie beyond it.
        for (std::int64_t i = 0; i < count && x + i * conv_.stride_.width < 0; ++i) {
          pointers[i] = border_;
        }
        for (std::int64_t i = count - 1; i >= 0 && x + i * conv_.stride_.width >= view_.width;
             --i) {
          pointers[i] = border_;
        }
      }
    }
  }

  const Conv2d& conv_;
  const View& view_;
  std::int64_t mr_;
  const std::byte* src_;
  const std::byte* border_;
  std::byte* dst_;
  const void** pixels_;
  std::byte* patches_;
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
  gathering_ = choose_gathering(spec);
  if (gathering_ != Gathering::pixels) interior_ = nullptr;
  const std::int64_t taps = spec.kernel.height * spec.kernel.width;
  const std::int64_t seen_taps = gathering_ == Gathering::pixels ? taps
                                 : gathering_ == Gathering::rows ? spec.kernel.height
                                                                 : 1;
  weights_ = pack_conv_weights(
      gathering_ == Gathering::pixels ? spec.weights.data() : join_taps(spec, gathering_).data(),
      spec.filters, spec.channels * (taps / seen_taps), seen_taps, kernel_->weights, kernel_->nr,
      kernel_->kr);
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
  const auto element_bytes = static_cast<std::int64_t>(size_of(types_.src));
  view_ = {.height = input_.height,
           .width = input_.width,
           .pixel_bytes = input_.stride() * element_bytes,
           .kernel = kernel_size_,
           .padding = padding_};
  if (gathering_ != Gathering::pixels) {
    view_ = {.height = input_.height + 2 * padding_.height,
             .width = input_.width + 2 * padding_.width,
             .pixel_bytes = channels_ * element_bytes,
             .kernel = {.height = kernel_size_.height, .width = 1},
             .padding = {.height = 0, .width = 0}};
  }
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
  // Copies and kernels read, and skip, elements behind the last pixel.
  const std::int64_t packed_bytes =
      input_.batch * view_.height * view_.width * view_.pixel_bytes + 2 * kChunk;
  take(scratch.packed,
       gathering_ == Gathering::pixels ? 0 : static_cast<std::size_t>(packed_bytes));
  take(scratch.patches, threads * static_cast<std::size_t>(patch_bytes()));
  scratch.bytes = offset;
  return scratch;
}

std::int64_t Conv2d::patch_pitch() const {
  const std::int64_t bytes = kernel_size_.height * kernel_size_.width * view_.pixel_bytes;
  return round_up<std::int64_t>(bytes, kAlignment);
}

std::int64_t Conv2d::patch_bytes() const {
  if (gathering_ == Gathering::patches) return kernel_->mr * patch_pitch() + kAlignment;
  if (interior_ == nullptr) return 0;
  return round_up<std::int64_t>(3 * (kernel_->mr + 2) * view_.pixel_bytes, kAlignment);
}

std::size_t Conv2d::scratch_bytes() const { return lay_out(nullptr).bytes; }

void Conv2d::fill_border(const Scratch& scratch, const RunState& state) const {
  const int zero = types_.src == DType::qai8
                       ? state.qparams[static_cast<std::size_t>(types_.src_row)].zero_point
                       : 0;
  std::memset(scratch.border, zero,
              static_cast<std::size_t>(input_.stride()) * size_of(types_.src));
}

/// One row of the packed source, border included.
void Conv2d::pack_row(const std::byte* src, const Scratch& scratch, std::int64_t row) const {
  const std::int64_t row_bytes = view_.width * view_.pixel_bytes;
  std::byte* dst = scratch.packed + row * row_bytes;
  const std::int64_t y = row % view_.height - padding_.height;
  const auto zero = static_cast<int>(*scratch.border);
  if (y < 0 || y >= input_.height) {
    std::memset(dst, zero, static_cast<std::size_t>(row_bytes));
    return;
  }
  const std::int64_t side_bytes = padding_.width * view_.pixel_bytes;
  std::memset(dst, zero, static_cast<std::size_t>(side_bytes));
  dst += side_bytes;
  const std::int64_t src_pixel_bytes =
      input_.stride() * static_cast<std::int64_t>(size_of(types_.src));
  const std::byte* from =
      src + (row / view_.height * input_.height + y) * input_.width * src_pixel_bytes;
  // What chunks write too much, the next pixel overwrites; those that would reach beyond the row,
  // which is another thread's, give way to exact copies.
  const std::int64_t in_chunks =
      input_.width - round_up<std::int64_t>(view_.pixel_bytes, kChunk) / view_.pixel_bytes - 1;
  for (std::int64_t x = 0; x < input_.width; ++x) {
    if (x < in_chunks) {
      copy_chunks(dst, from, view_.pixel_bytes);
    } else {
      std::memcpy(dst, from, static_cast<std::size_t>(view_.pixel_bytes));
    }
    dst += view_.pixel_bytes;
    from += src_pixel_bytes;
  }
  std::memset(dst, zero, static_cast<std::size_t>(side_bytes));
}

void Conv2d::run(const RunArgs& args, RunState& state) const {
  const Scratch scratch = lay_out(args.scratch);
  OutputStage stage = fill_output_stage(
      types_, activation_, weights_, bias_, state,
      {.correction = scratch.correction, .multiplier = scratch.multiplier, .bias = scratch.bias});
  // Where the multipliers are all 1, kernels add no more than the bias.
  if (types_.src == DType::f16 && types_.dst == DType::f16) stage.multiplier = nullptr;
  fill_border(scratch, state);
  const auto* src = static_cast<const std::byte*>(args.inputs[0].data);
  if (gathering_ != Gathering::pixels) {
    state.pool.parallel_for(input_.batch * view_.height,
                            [&](std::int64_t begin, std::int64_t end, int) {
                              for (std::int64_t row = begin; row < end; ++row) {
                                pack_row(src, scratch, row);
                              }
                            });
    src = scratch.packed;
  }
  std::fill_n(scratch.ranges, threads_, Range{});

  const std::int64_t tiles = (output_.pixels() + kernel_->mr - 1) / kernel_->mr;
  state.pool.parallel_for(tiles, [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Tiles(*this, src, static_cast<std::byte*>(args.output.data), scratch, own, thread)
        .run(begin, end);
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
