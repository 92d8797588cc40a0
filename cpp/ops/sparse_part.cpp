// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_part.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace qpp {
namespace {

constexpr std::uint32_t kCopied =
    4;  // entries that are copied at once: a vector of their positions
static_assert(kCopied <= kOutlierSlack);

}  // namespace

/// A row of sources under the kernel.
struct SparsePart::KernelRow {
  OutlierRow outliers;
  std::uint32_t shift;  // from a position to a row of the weights, but for the pixel
};

/// The working memory of one thread: the outliers under a tile as a sparse matrix.
struct SparsePart::Scratch {
  KernelRow* rows;         // [kernel height]
  std::uint32_t* begins;   // [tile + 1]
  std::uint32_t* columns;  // as many as there are elements under the tile, and kOutlierSlack
  half* values;            // the same
  half* sums;              // [tile][filters]
  std::size_t bytes;
};

SparsePart::SparsePart(const Conv2dSpec& spec, std::span<const float> scales,
                       const KernelSelection& selection)
    : kernel_size_(spec.kernel),
      stride_(spec.stride),
      padding_(spec.padding),
      dilation_(spec.dilation),
      filters_(round_up<std::int64_t>(spec.filters, kChannelPadding)),
      kernel_(&selection.spmm()) {
  const std::int64_t taps = spec.kernel.height * spec.kernel.width;
  const std::int64_t channels = round_up<std::int64_t>(spec.channels, kChannelPadding);
  weights_.resize(static_cast<std::size_t>(taps * channels * filters_));
  for (std::int64_t f = 0; f < spec.filters; ++f) {
    const float scale = scales[static_cast<std::size_t>(f)];
    for (std::int64_t c = 0; c < spec.channels; ++c) {
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        const auto from = static_cast<std::size_t>((f * spec.channels + c) * taps + tap);
        const float level = std::clamp(std::nearbyint(spec.weights[from] / scale), -127.0F, 127.0F);
        weights_[static_cast<std::size_t>((tap * channels + c) * filters_ + f)] =
            to_half(level / kSparseUnit);
      }
    }
  }
}

void SparsePart::prepare(const Shape& input, const Shape& output, std::int64_t tile) {
  input_ = input;
  output_ = output;
  tile_ = tile;
}

SparsePart::Scratch SparsePart::lay_out(std::byte* base) const {
  Scratch scratch{};
  std::size_t offset = 0;
  const auto take = [&](auto*& pointer, std::int64_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + offset);
    offset += round_up(static_cast<std::size_t>(count) * sizeof(*pointer), kAlignment);
  };
  const std::int64_t entries =
      tile_ * kernel_size_.height * kernel_size_.width * input_.stride() + kOutlierSlack;
  take(scratch.rows, kernel_size_.height);
  take(scratch.begins, tile_ + 1);
  take(scratch.columns, entries);
  take(scratch.values, entries);
  take(scratch.sums, tile_ * filters_);
  scratch.bytes = offset;
  return scratch;
}

std::size_t SparsePart::scratch_bytes() const { return lay_out(nullptr).bytes; }

/// Lists the outliers under one output pixel after the other, of one row of outputs.
class SparsePart::Gatherer {
 public:
  Gatherer(const SparsePart& part, const Outliers& source, const Scratch& scratch)
      : part_(part),
        source_(source),
        rows_(scratch.rows),
        run_(part.dilation_.width == 1 ? part.kernel_size_.width : 1) {}

  /// The pixels that follow lie in row y of image n.
  void begin_row(std::int64_t n, std::int64_t y) {
    const std::int64_t top = y * part_.stride_.height - part_.padding_.height;
    row_count_ = 0;
    for (std::int64_t ky = 0; ky < part_.kernel_size_.height; ++ky) {
      const std::int64_t row = top + ky * part_.dilation_.height;
      if (row < 0 || row >= part_.input_.height) continue;
      const std::int64_t tap = ky * part_.kernel_size_.width;
      rows_[row_count_++] = {source_.row(n * part_.input_.height + row),
                             static_cast<std::uint32_t>(tap * part_.input_.stride())};
    }
  }

  /// Appends those under pixel x to the `count` entries so far, and returns the number of all.
  std::uint32_t add(std::int64_t x, std::uint32_t count, std::uint32_t* columns,
                    half* values) const {
    const std::int64_t width = part_.input_.width;
    const std::int64_t left = x * part_.stride_.width - part_.padding_.width;
    // A run of pixels whose taps follow one another, as the weights do.
    for (std::int64_t kx = 0; kx < part_.kernel_size_.width; kx += run_) {
      const std::int64_t begin = left + kx * part_.dilation_.width;
      const std::int64_t first = std::clamp<std::int64_t>(begin, 0, width);
      const std::int64_t last = std::clamp<std::int64_t>(begin + run_, 0, width);
      const auto shift = static_cast<std::uint32_t>((kx - begin) * part_.input_.stride());
      for (std::int64_t i = 0; i < row_count_; ++i) {
        const KernelRow& row = rows_[i];
        const std::uint32_t from = row.outliers.begins[first];
        const std::uint32_t end = row.outliers.begins[last];
        copy(row.outliers.positions + from, row.outliers.residuals + from, end - from,
             row.shift + shift, columns + count, values + count);
        count += end - from;
      }
    }
    return count;
  }

 private:
  /// Copies entries, their positions turned into rows of the weights: vector by vector, the last of
  /// which may be too long, since the next copy overwrites the rest. Seldom there is more than one.
  static void copy(const std::uint32_t* positions, const half* residuals, std::uint32_t count,
                   std::uint32_t shift, std::uint32_t* columns, half* values) {
    copy_vector(positions, residuals, shift, columns, values);
    if (count > kCopied) [[unlikely]] {
      copy_rest(positions, residuals, count, shift, columns, values);
    }
  }
  static void copy_vector(const std::uint32_t* positions, const half* residuals,
                          std::uint32_t shift, std::uint32_t* columns, half* values) {
    std::array<std::uint32_t, kCopied> part;  // NOLINT(*-member-init)
    std::memcpy(part.data(), positions, sizeof(part));
    for (std::uint32_t& position : part) position += shift;
    std::memcpy(columns, part.data(), sizeof(part));
    std::memcpy(values, residuals, kCopied * sizeof(half));
  }
  [[gnu::noinline]] static void copy_rest(const std::uint32_t* positions, const half* residuals,
                                          std::uint32_t count, std::uint32_t shift,
                                          std::uint32_t* columns, half* values) {
    for (std::uint32_t i = kCopied; i < count; i += kCopied) {
      copy_vector(positions + i, residuals + i, shift, columns + i, values + i);
    }
  }

  const SparsePart& part_;
  const Outliers& source_;
  KernelRow* rows_;
  std::int64_t row_count_ = 0;
  std::int64_t run_;
};

const half* SparsePart::run(const Outliers& source, Place place, std::int64_t count,
                            std::byte* base) const {
  const Scratch scratch = lay_out(base);
  Gatherer gatherer(*this, source, scratch);
  gatherer.begin_row(place.n, place.y);
  scratch.begins[0] = 0;
  for (std::int64_t p = 0; p < count; ++p) {
    if (place.x == output_.width) {
      place.x = 0;
      if (++place.y == output_.height) {
        place.y = 0;
        ++place.n;
      }
      gatherer.begin_row(place.n, place.y);
    }
    scratch.begins[p + 1] =
        gatherer.add(place.x++, scratch.begins[p], scratch.columns, scratch.values);
  }
  kernel_->function({.begins = scratch.begins,
                     .columns = scratch.columns,
                     .values = scratch.values,
                     .rows = count,
                     .filters = filters_,
                     .weights = weights_.data(),
                     .sums = scratch.sums});
  return scratch.sums;
}

}  // namespace qpp
