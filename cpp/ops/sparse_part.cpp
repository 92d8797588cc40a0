// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_part.h"

#include <algorithm>
#include <cmath>

namespace qpp {
/// The working memory of one thread.
struct SparsePart::Scratch {
  SpmmRow* rows;  // [kernel height]
  half* sums;     // [tile][filters]
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
  take(scratch.rows, kernel_size_.height);
  take(scratch.sums, tile_ * filters_);
  scratch.bytes = offset;
  return scratch;
}

std::size_t SparsePart::scratch_bytes() const { return lay_out(nullptr).bytes; }

std::int64_t SparsePart::find_rows(const Outliers& source, const Place& place,
                                   SpmmRow* rows) const {
  const std::int64_t top = place.y * stride_.height - padding_.height;
  std::int64_t count = 0;
  for (std::int64_t ky = 0; ky < kernel_size_.height; ++ky) {
    const std::int64_t y = top + ky * dilation_.height;
    if (y < 0 || y >= input_.height) continue;
    rows[count++] = {
        .outliers = source.row(place.n * input_.height + y),
        .weights = weights_.data() + ky * kernel_size_.width * input_.stride() * filters_};
  }
  return count;
}

const half* SparsePart::run(const Outliers& source, Place place, std::int64_t count,
                            std::byte* base) const {
  const Scratch scratch = lay_out(base);
  SpmmArgs args{.rows = scratch.rows,
                .width = input_.width,
                .step = stride_.width,
                .taps = kernel_size_.width,
                .tap_step = dilation_.width,
                .channels = input_.stride(),
                .filters = filters_,
                .sums = scratch.sums};
  while (count > 0) {
    args.row_count = find_rows(source, place, scratch.rows);
    args.first = place.x * stride_.width - padding_.width;
    args.pixels = std::min(count, output_.width - place.x);
    kernel_->function(args);
    args.sums += args.pixels * filters_;
    count -= args.pixels;
    place.x = 0;
    if (++place.y < output_.height) continue;
    place.y = 0;
    ++place.n;
  }
  return scratch.sums;
}

}  // namespace qpp
