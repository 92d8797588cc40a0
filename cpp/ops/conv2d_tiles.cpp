// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d_tiles.h"

#include <algorithm>
#include <cstring>

#include "ops/conv2d_wide.h"
#include "ops/copy_pixels.h"

namespace qpp {
namespace {

constexpr std::int64_t kTile = 8;  // pixels of a NEON tile

/// pointers[i] = first + i * step, without a check of their targets.
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

}  // namespace

Conv2d::Tiles::Tiles(const Conv2d& conv, const std::byte* src, const RunArgs& run,
                     const RunState& state, const Scratch& scratch, const OutputStage& stage,
                     const SparsifyArgs& sparsify, int thread)
    : conv_(conv),
      input_(conv.input_),
      pixel_bytes_(conv.source_bytes(conv.input_.stride())),
      mr_(conv.kernel_->mr),
      src_(src),
      run_(run),
      state_(state),
      border_(scratch.border),
      levels_(scratch.levels + thread * conv.levels_bytes()),
      sparsify_(sparsify),
      wide_(conv.wide_kernel_ == nullptr
                ? nullptr
                : scratch.wide + thread * static_cast<std::int64_t>(WideTile::scratch_bytes(conv))),
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

void Conv2d::Tiles::run(std::int64_t first, std::int64_t end) {
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
    const Place begin = place;
    if (!run_fast(place, first)) run_wide(begin, first);
  }
}

bool Conv2d::Tiles::run_fast(Place& place, std::int64_t first) {
  if (sparse_) {
    args_.sparse = sparse_->of(place, args_.pixel_count);
    if (args_.sparse == nullptr) {
      advance_over_rows(place, args_.pixel_count);
      return false;
    }
  }
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
  if (conv_.sparsify_ == nullptr) return true;
  const std::uint32_t dropped = count_dropped_before(run_.output, first);
  if (sparsify_pixels(*conv_.sparsify_, sparsify_, run_.output, first, args_.pixel_count) ||
      conv_.wide_kernel_ == nullptr) {
    return true;
  }
  restore_dropped(run_.output, first, dropped);
  return false;
}

void Conv2d::Tiles::run_wide(Place place, std::int64_t first) {
  WideTile wide(conv_, state_, wide_);
  const bool sparse = sparse_.has_value();
  if (sparse) sparse_->to_floats(place, args_.pixel_count, wide.sums());
  if (conv_.pointwise_) {
    gather_in_line(first);
  } else {
    gather(place);
  }
  const half* values = wide.compute(args_, sparse);
  if (conv_.types_.sparse_dst) {
    SparsifyArgs args =
        sparsify_bounds(state_.qparams[static_cast<std::size_t>(conv_.types_.dst_row)]);
    args.src = values;
    sparsify_pixels(*conv_.wide_sparsify_, args, run_.output, first, args_.pixel_count);
    return;
  }
  const std::int64_t count = args_.pixel_count * conv_.output_.stride();
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = to_float(values[i]);
    if (conv_.types_.dst == DType::f16) {
      store(*args_.output, value, static_cast<half*>(args_.dst) + i);
      continue;
    }
    const QParams& row = state_.qparams[static_cast<std::size_t>(conv_.types_.dst_row)];
    const auto lo = static_cast<float>(row.qmin - row.zero_point);
    const auto hi = static_cast<float>(row.qmax - row.zero_point);
    static_cast<std::int8_t*>(args_.dst)[i] =
        round_to_int8(clamp_level(value * row.inverse_scale, lo, hi), row.zero_point);
  }
}

void Conv2d::Tiles::advance_over_rows(Place& place, std::int64_t count) const {
  while (count > 0) {
    const std::int64_t part = std::min(count, conv_.output_.width - place.x);
    advance(place, part);
    count -= part;
  }
}

void Conv2d::Tiles::advance(Place& place, std::int64_t count) const {
  place.x += count;
  if (place.x < conv_.output_.width) return;
  place.x = 0;
  if (++place.y < conv_.output_.height) return;
  place.y = 0;
  ++place.n;
}

void Conv2d::Tiles::find_source(const Place& place) {
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

void Conv2d::Tiles::fill_zero(std::byte* dst, std::int64_t bytes) const {
  std::memset(dst, static_cast<int>(*border_), static_cast<std::size_t>(bytes));
}

void Conv2d::Tiles::gather(Place& place) {
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

void Conv2d::Tiles::gather_in_line(std::int64_t first) {
  fill_pointers(pixels_, reinterpret_cast<std::intptr_t>(src_) + first * pixel_bytes_, pixel_bytes_,
                args_.pixel_count);
  std::fill(pixels_ + args_.pixel_count, pixels_ + mr_, pixels_[0]);  // any valid sources
}

void Conv2d::Tiles::gather_in_row(const Place& place, std::int64_t p, std::int64_t count) {
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

void Conv2d::Tiles::gather_at_border(const Place& place, std::int64_t p, std::int64_t count) {
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
      // At most a few pixels at the ends of a row are outside of it.
      for (std::int64_t i = 0; i < count && x + i * conv_.stride_.width < 0; ++i) {
        pointers[i] = border_;
      }
      for (std::int64_t i = count - 1; i >= 0 && x + i * conv_.stride_.width >= input_.width; --i) {
        pointers[i] = border_;
      }
    }
  }
}

void Conv2d::Tiles::gather_in_strips(const Place& place, std::int64_t p, std::int64_t count) {
  const std::int64_t step = conv_.stride_.width * conv_.strips_.column_bytes;
  const void** pointers = pixels_ + p;
  std::int64_t strip = place.n * conv_.strips_.per_image + place.y * conv_.strips_.per_output_row;
  for (std::int64_t tap = 0; tap < args_.taps; ++tap, pointers += mr_) {
    const auto first = reinterpret_cast<std::intptr_t>(find_strip(strip));
    fill_pointers(pointers, first + place.x * step, step, count);
    strip += conv_.dilation_.height;
  }
}

const std::byte* Conv2d::Tiles::find_strip(std::int64_t strip) {
  for (; next_strip_ <= strip; ++next_strip_) fill_strip(next_strip_);
  return copies_ + strip % conv_.strips_.kept * conv_.strips_.bytes;
}

void Conv2d::Tiles::fill_strip(std::int64_t strip) {
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
  for (std::int64_t i = 0; i < strips.rows; ++i, dst += bytes) {
    copy_pixels({.src = static_cast<const std::byte*>(rows_[i]),
                 .dst = dst,
                 .src_pixel = pixel_bytes_,
                 .dst_pixel = strips.column_bytes,
                 .bytes = bytes},
                input_.width);
  }
  dst += (input_.width - 1) * strips.column_bytes;
  fill_zero(dst, end - dst);
}

}  // namespace qpp
