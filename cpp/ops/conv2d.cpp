// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "ops/conv_output.h"
#include "ops/sparse_part.h"
#include "ops/sparsify.h"

namespace qpp {

bool is_3x3_stride_1(const Conv2dSpec& spec) {
  return spec.kernel.height == 3 && spec.kernel.width == 3 && spec.stride.height == 1 &&
         spec.stride.width == 1 && spec.dilation.height == 1 && spec.dilation.width == 1;
}

namespace {

constexpr std::int64_t kTile = 8;    // pixels of a NEON tile
constexpr std::int64_t kChunk = 16;  // bytes of a vector

using Gathering = Conv2d::Gathering;

/// What the kernels shall see as a tap. Kernels take channels in steps, and so compute with padding
/// where pixels are no whole number of them; copies that bring pixels together without padding cost
/// time, too.
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
  // For each pixel of the output, of which each needs as many copies as strides skip pixels.
  const std::int64_t padding_macs = padding * spec.kernel.height * spec.filters;
  const std::int64_t copies = spec.stride.height * spec.stride.width;
  return padding_macs > kCopyMacs * copies ? Gathering::rows : Gathering::pixels;
}

/// Weights OIHW with the channels behind the columns, and a column's rows between them for patches.
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

/// Copies `count` pixels, of `bytes` each, that lie so many bytes apart.
using CopyPixels = void (*)(std::byte* dst, std::int64_t dst_step, const std::byte* src,
                            std::int64_t src_step, std::int64_t bytes, std::int64_t count);

/// Pixels of a known size: each takes a few instructions.
template <std::size_t kBytes>
void copy_known(std::byte* dst, std::int64_t dst_step, const std::byte* src, std::int64_t src_step,
                std::int64_t /*bytes*/, std::int64_t count) {
#pragma GCC unroll 4
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(dst + i * dst_step, src + i * src_step, kBytes);
  }
}

/// Pixels of any size, in whole chunks.
void copy_chunks(std::byte* dst, std::int64_t dst_step, const std::byte* src, std::int64_t src_step,
                 std::int64_t bytes, std::int64_t count) {
  for (; count > 0; --count, dst += dst_step, src += src_step) {
    for (std::int64_t i = 0; i < bytes; i += kChunk) std::memcpy(dst + i, src + i, kChunk);
  }
}

/// The fastest copy. What it writes beyond `bytes`, and reads, is less than a chunk.
CopyPixels choose_copy(std::int64_t bytes) {
  switch (bytes) {
    case 1:
      return copy_known<1>;
    case 2:
      return copy_known<2>;
    case 3:
      return copy_known<3>;
    case 4:
      return copy_known<4>;
    case 6:
      return copy_known<6>;
    case 8:
      return copy_known<8>;
    default:
      return bytes <= kChunk       ? copy_known<kChunk>
             : bytes <= 2 * kChunk ? copy_known<2 * kChunk>
                                   : copy_chunks;
  }
}

}  // namespace

/// The working memory of one run, carved from one block.
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
  std::byte* levels;              // [threads][levels_bytes()], a tile of what sparsify_ reads
  std::size_t bytes;
};

/// Walks the output in tiles of mr successive pixels, over the ends of rows and images.
class Conv2d::Tiles {
 public:
  using Place = SparsePart::Place;

  Tiles(const Conv2d& conv, const std::byte* src, const RunArgs& run, const Scratch& scratch,
        const OutputStage& stage, const SparsifyArgs& sparsify, int thread)
      : conv_(conv),
        input_(conv.input_),
        pixel_bytes_(conv.source_bytes(conv.input_.stride())),
        mr_(conv.kernel_->mr),
        src_(src),
        run_(run),
        border_(scratch.border),
        levels_(scratch.levels + thread * conv.levels_bytes()),
        sparsify_(sparsify),
        pixels_(scratch.pixels + thread * conv.weights_.taps * conv.kernel_->mr),
        rows_(scratch.rows + thread * conv.kernel_size_.height),
        copies_(scratch.copies + thread * conv.copy_bytes()) {
    args_.pixels = pixels_;
    args_.src_pixel_stride = input_.stride();
    args_.taps = conv.weights_.taps;
    args_.channels = conv.weights_.channels;
    args_.filters = conv.output_.stride();
    args_.empty_filters = conv.output_.stride() - conv.output_.channels;
    args_.weights = conv.weights_.data.data();
    args_.dst_stride = conv.output_.stride();
    args_.output = &stage;
    if (conv.sparse_part_ != nullptr) {
      sparse_.emplace(
          *conv.sparse_part_, run.inputs[0].outliers,
          scratch.sparse + thread * static_cast<std::int64_t>(conv.sparse_part_->scratch_bytes()));
    }
    if (conv.types_.residual) {
      residual_ = static_cast<const std::byte*>(run.inputs[1].data);
      residual_pixel_bytes_ =
          conv.output_.stride() * static_cast<std::int64_t>(size_of(*conv.types_.residual));
    }
    dst_pixel_bytes_ = conv.output_.stride() * static_cast<std::int64_t>(size_of(conv.types_.dst));
    sparsify_.src = levels_;
  }

  /// Output pixels first .. end.
  void run(std::int64_t first, std::int64_t end) {
    Place place{.x = first % conv_.output_.width, .y = first / conv_.output_.width};
    place.n = place.y / conv_.output_.height;
    place.y %= conv_.output_.height;
    next_strip_ = place.n * conv_.strips_.per_image + place.y * conv_.strips_.per_output_row;
    for (; first < end; first += mr_) {
      args_.pixel_count = std::min(mr_, end - first);
      args_.dst = conv_.sparsify_ != nullptr
                      ? levels_
                      : static_cast<std::byte*>(run_.output.data) + first * dst_pixel_bytes_;
      if (residual_ != nullptr) args_.residual = residual_ + first * residual_pixel_bytes_;
      if (sparse_) args_.sparse = sparse_->of(place, args_.pixel_count);
      if (conv_.interior_ != nullptr && args_.pixel_count == mr_ &&
          place.x + mr_ <= conv_.output_.width) {
        find_source(place);
        conv_.interior_->function(args_);
        advance(place, mr_);
      } else if (conv_.pointwise_) {
        gather_in_line(first);
        conv_.kernel_->function(args_);
      } else {
        gather(place);
        conv_.kernel_->function(args_);
      }
      if (conv_.sparsify_ != nullptr) {
        sparsify_pixels(*conv_.sparsify_, sparsify_, run_.output, first, args_.pixel_count);
      }
    }
  }

 private:
  /// Moves on by `count` pixels, at most to the start of the next row.
  void advance(Place& place, std::int64_t count) const {
    place.x += count;
    if (place.x < conv_.output_.width) return;
    place.x = 0;
    if (++place.y < conv_.output_.height) return;
    place.y = 0;
    ++place.n;
  }

  /// The source of an interior tile; one that reaches over the border is copied, and the border
  /// filled in, since the general kernel takes longer than that.
  void find_source(const Place& place) {
    const std::int64_t y = place.y - conv_.padding_.height;
    const std::int64_t x = place.x - conv_.padding_.width;
    const std::int64_t width = mr_ + 2;
    const std::byte* src = src_ + ((place.n * input_.height + y) * input_.width + x) * pixel_bytes_;
    if (y >= 0 && y + 3 <= input_.height && x >= 0 && x + width <= input_.width) {
      args_.src = src;
      args_.src_row_stride = input_.width * args_.src_pixel_stride;
      return;
    }
    const std::int64_t begin = std::clamp<std::int64_t>(-x, 0, width);
    const std::int64_t end = std::clamp(input_.width - x, begin, width);
    std::byte* dst = copies_;
    for (std::int64_t ky = 0; ky < 3; ++ky) {
      const bool inside = y + ky >= 0 && y + ky < input_.height;
      fill_zero(dst, (inside ? begin : width) * pixel_bytes_);
      if (inside) {
        const std::byte* row = src + (ky * input_.width + begin) * pixel_bytes_;
        std::memcpy(dst + begin * pixel_bytes_, row,
                    static_cast<std::size_t>((end - begin) * pixel_bytes_));
        fill_zero(dst + end * pixel_bytes_, (width - end) * pixel_bytes_);
      }
      dst += width * pixel_bytes_;
    }
    args_.src = copies_;
    args_.src_row_stride = width * args_.src_pixel_stride;
  }

  void fill_zero(std::byte* dst, std::int64_t bytes) const {
    std::memset(dst, static_cast<int>(*border_), static_cast<std::size_t>(bytes));
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
      if (conv_.gathering_ == Gathering::pixels) {
        gather_in_row(place, p, count);
      } else {
        gather_in_strips(place, p, count);
      }
      advance(place, count);
      p += count;
    }
  }

  /// The same for a pointwise convolution, whose sources lie like its outputs.
  void gather_in_line(std::int64_t first) {
    fill_pointers(pixels_, reinterpret_cast<std::intptr_t>(src_) + first * pixel_bytes_,
                  pixel_bytes_, args_.pixel_count);
    std::fill(pixels_ + args_.pixel_count, pixels_ + mr_, pixels_[0]);  // any valid sources
  }

  /// The same for `count` pixels of one row, the first of which is pixel p of the tile.
  void gather_in_row(const Place& place, std::int64_t p, std::int64_t count) {
    const auto [height, width] = conv_.kernel_size_;
    const std::int64_t top = place.y * conv_.stride_.height - conv_.padding_.height;
    const std::int64_t left = place.x * conv_.stride_.width - conv_.padding_.width;
    const std::int64_t bottom = top + (height - 1) * conv_.dilation_.height;
    const std::int64_t right =
        left + (count - 1) * conv_.stride_.width + (width - 1) * conv_.dilation_.width;
    if (top < 0 || left < 0 || bottom >= input_.height || right >= input_.width) {
      gather_at_border(place, p, count);
      return;
    }
    const std::int64_t step = conv_.stride_.width * pixel_bytes_;
    const std::int64_t next_row = conv_.dilation_.height * input_.width * pixel_bytes_;
    const std::int64_t next_column = conv_.dilation_.width * pixel_bytes_;
    auto row = reinterpret_cast<std::intptr_t>(src_) +
               ((place.n * input_.height + top) * input_.width + left) * pixel_bytes_;
    const void** pointers = pixels_ + p;
    for (std::int64_t ky = 0; ky < height; ++ky, row += next_row) {
      for (std::int64_t kx = 0; kx < width; ++kx, pointers += mr_) {
        fill_pointers(pointers, row + kx * next_column, step, count);
      }
    }
  }

  /// The same where some taps lie outside the image.
  void gather_at_border(const Place& place, std::int64_t p, std::int64_t count) {
    const std::int64_t step = conv_.stride_.width * pixel_bytes_;
    const void** pointers = pixels_ + p;
    for (std::int64_t ky = 0; ky < conv_.kernel_size_.height; ++ky) {
      const std::int64_t y =
          place.y * conv_.stride_.height - conv_.padding_.height + ky * conv_.dilation_.height;
      const bool row_inside = y >= 0 && y < input_.height;
      const auto row = reinterpret_cast<std::intptr_t>(src_) +
                       (place.n * input_.height + y) * input_.width * pixel_bytes_;
      for (std::int64_t kx = 0; kx < conv_.kernel_size_.width; ++kx, pointers += mr_) {
        const std::int64_t x =
            place.x * conv_.stride_.width - conv_.padding_.width + kx * conv_.dilation_.width;
        if (!row_inside) {
          fill_pointers(pointers, reinterpret_cast<std::intptr_t>(border_), 0, count);
          continue;
        }
        fill_pointers(pointers, row + x * pixel_bytes_, step, count);
        // At most a few pixels at the ends of a row lie beyond it.
        for (std::int64_t i = 0; i < count && x + i * conv_.stride_.width < 0; ++i) {
          pointers[i] = border_;
        }
        for (std::int64_t i = count - 1; i >= 0 && x + i * conv_.stride_.width >= input_.width;
             --i) {
          pointers[i] = border_;
        }
      }
    }
  }

  /// The same with strips.
  void gather_in_strips(const Place& place, std::int64_t p, std::int64_t count) {
    const std::int64_t step = conv_.stride_.width * conv_.strips_.column_bytes;
    const void** pointers = pixels_ + p;
    std::int64_t strip = place.n * conv_.strips_.per_image + place.y * conv_.strips_.per_output_row;
    for (std::int64_t tap = 0; tap < args_.taps; ++tap, pointers += mr_) {
      const auto first = reinterpret_cast<std::intptr_t>(find_strip(strip));
      fill_pointers(pointers, first + place.x * step, step, count);
      strip += conv_.dilation_.height;
    }
  }

  /// Strips are made in order, and the last few are kept.
  const std::byte* find_strip(std::int64_t strip) {
    for (; next_strip_ <= strip; ++next_strip_) fill_strip(next_strip_);
    return copies_ + strip % conv_.strips_.kept * conv_.strips_.bytes;
  }

  void fill_strip(std::int64_t strip) {
    const Strips& strips = conv_.strips_;
    const std::int64_t n = strip / strips.per_image;
    const std::int64_t top = strip % strips.per_image * strips.row_step - conv_.padding_.height;
    for (std::int64_t i = 0; i < strips.rows; ++i) {
      const std::int64_t y = top + i * conv_.dilation_.height;
      const bool inside = y >= 0 && y < input_.height;
      rows_[i] = inside ? src_ + (n * input_.height + y) * input_.width * pixel_bytes_ : border_;
    }
    std::byte* dst = copies_ + strip % strips.kept * strips.bytes;
    const std::byte* const end = dst + strips.bytes;
    const std::int64_t before = conv_.padding_.width * strips.column_bytes;
    fill_zero(dst, before);
    dst += before;
    const std::int64_t bytes = strips.column_bytes / strips.rows;
    // What is written beyond a pixel, the next one overwrites. The last pixels, where what is read
    // beyond them might be beyond the row, are copied exactly.
    const std::int64_t most = std::max<std::int64_t>(input_.width - kChunk / pixel_bytes_ - 1, 0);
    for (std::int64_t i = 0; i < strips.rows; ++i, dst += bytes) {
      const auto* src = static_cast<const std::byte*>(rows_[i]);
      choose_copy(bytes)(dst, strips.column_bytes, src, pixel_bytes_, bytes, most);
      for (std::int64_t x = most; x < input_.width; ++x) {
        std::memcpy(dst + x * strips.column_bytes, src + x * pixel_bytes_,
                    static_cast<std::size_t>(bytes));
      }
    }
    dst += (input_.width - 1) * strips.column_bytes;
    fill_zero(dst, end - dst);
  }

  const Conv2d& conv_;
  const Shape& input_;
  std::int64_t pixel_bytes_;
  std::int64_t mr_;
  const std::byte* src_;
  const RunArgs& run_;
  const std::byte* border_;
  std::optional<SparsePart::Sums> sparse_;  // of a dense + sparse source
  std::byte* levels_;
  SparsifyArgs sparsify_;
  const void** pixels_;
  const void** rows_;
  std::byte* copies_;
  std::int64_t next_strip_ = 0;  // the first that is not made yet
  const std::byte* residual_ = nullptr;
  std::int64_t residual_pixel_bytes_ = 0;
  std::int64_t dst_pixel_bytes_;
  ConvArgs args_;
};

namespace {

/// What the kernels write: a dense + sparse destination is made from levels or, where there is a
/// source in fp16, from fp16.
DType kernel_dst(const Conv2dTypes& types) {
  if (!types.sparse_dst) return types.dst;
  return types.src == DType::qai8 ? DType::qai16 : DType::f16;
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
      interior_(is_3x3_stride_1(spec) ? selection.conv3x3s1(*kernel_) : nullptr) {
  gathering_ = choose_gathering(spec, *kernel_);
  if (gathering_ != Gathering::pixels) interior_ = nullptr;
  const auto is_one = [](const Size2d& size) { return size.height == 1 && size.width == 1; };
  pointwise_ = is_one(kernel_size_) && is_one(stride_) && padding_.rows() == 0 &&
               padding_.columns() == 0 && !types.sparse_src;
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
  if (types.sparse_src) {
    sparse_part_ = std::make_unique<SparsePart>(spec, weights_.scales, selection);
  }
  if (types.sparse_dst) sparsify_ = &selection.sparsify(kernel_->dst);
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
  const std::int64_t reach = (kernel_size_.height - 1) * dilation_.height + 1;
  const std::int64_t columns =
      padding_.width + std::max(input_.width, (output_.width - 1) * stride_.width +
                                                  kernel_size_.width - padding_.width);
  const std::int64_t rows_of_tile = (kernel_->mr - 2) / output_.width + 2;
  const bool patches = gathering_ == Gathering::patches;
  strips_ = {.rows = patches ? kernel_size_.height : 1,
             .row_step = patches ? stride_.height : 1,
             .per_output_row = patches ? 1 : stride_.height,
             .per_image = patches ? output_.height : (output_.height - 1) * stride_.height + reach,
             .kept = rows_of_tile * (patches ? 1 : std::max(stride_.height, reach))};
  strips_.column_bytes = strips_.rows * source_bytes(channels_);
  // Kernels read, and skip, elements behind the last pixel.
  strips_.bytes = round_up(columns * strips_.column_bytes + 2 * kChunk, kLine);
  if (sparse_part_ != nullptr) sparse_part_->prepare(input_, output_, kernel_->mr);
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
  take(scratch.residual_factor, types_.residual ? filters * sizeof(std::int16_t) : 0);
  take(scratch.border, static_cast<std::size_t>(border_pixels() * source_bytes(input_.stride())));
  take(scratch.ranges, threads * sizeof(Range));
  take(scratch.pixels,
       threads * static_cast<std::size_t>(weights_.taps * kernel_->mr) * sizeof(void*));
  take(scratch.rows, threads * static_cast<std::size_t>(kernel_size_.height) * sizeof(void*));
  take(scratch.copies, threads * static_cast<std::size_t>(copy_bytes()));
  take(scratch.sparse, sparse_part_ == nullptr ? 0 : threads * sparse_part_->scratch_bytes());
  take(scratch.levels, threads * static_cast<std::size_t>(levels_bytes()));
  scratch.bytes = offset;
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

/// What a thread copies of the source: its strips, or the source of an interior tile.
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
  if (types_.src == DType::f16 && kernel_->dst == DType::f16) stage.multiplier = nullptr;
  fill_border(scratch, state);
  const auto* src = static_cast<const std::byte*>(args.inputs[0].data);
  std::fill_n(scratch.ranges, threads_, Range{});

  SparsifyArgs sparsify;
  if (sparsify_ != nullptr) {
    sparsify = sparsify_bounds(state.qparams[static_cast<std::size_t>(types_.dst_row)]);
    if (sparsify_->src == DType::qai16) {
      const float offset = stage.float_sums ? 0.0F : static_cast<float>(stage.zero_point);
      sparsify.lo = static_cast<std::int32_t>(std::nearbyint(stage.lo + offset));
      sparsify.hi = static_cast<std::int32_t>(std::nearbyint(stage.hi + offset));
    }
  }

  // Threads share out tiles, or whole rows, of which each has its list of outliers.
  const std::int64_t unit = sparsify_ != nullptr ? output_.width : kernel_->mr;
  const std::int64_t units = (output_.pixels() + unit - 1) / unit;
  state.pool.parallel_for(units, [&](std::int64_t begin, std::int64_t end, int thread) {
    OutputStage own = stage;
    if (types_.range_row >= 0) own.range = &scratch.ranges[thread];
    Tiles(*this, src, args, scratch, own, sparsify, thread)
        .run(begin * unit, std::min(end * unit, output_.pixels()));
  });

  if (types_.range_row < 0) return;
  Range& range = state.ranges[static_cast<std::size_t>(types_.range_row)] = Range{};
  for (int thread = 0; thread < threads_; ++thread) {
    widen(range, scratch.ranges[thread]);
  }
}

std::size_t Conv2d::weight_bytes() const {
  return weights_.data.size() + (sparse_part_ == nullptr ? 0 : sparse_part_->weight_bytes());
}

std::string Conv2d::kernel() const {
  return interior_ != nullptr ? interior_->info.name : kernel_->info.name;
}

}  // namespace qpp
