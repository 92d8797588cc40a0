// SPDX-License-Identifier: Apache-2.0
#include "ops/sparse_part.h"

#include <algorithm>
#include <cmath>

#include "base/memory_layout.h"

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
        const float level = quantize_weight(spec.weights[from], scale);
        weights_[static_cast<std::size_t>((tap * channels + c) * filters_ + f)] =
            to_half(level * (kStepsPerResidual / kSparseUnit));
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
  MemoryLayout layout(base);
  layout.add(scratch.rows, kernel_size_.height);
  layout.add(scratch.sums, tile_ * filters_);
  scratch.bytes = layout.bytes();
  return scratch;
}

std::size_t SparsePart::scratch_bytes() const { return lay_out(nullptr).bytes; }

SparsePart::Sums::Sums(const SparsePart& part, const Outliers& source, std::byte* base)
    : part_(part), source_(source) {
  const Scratch scratch = part.lay_out(base);
  rows_ = scratch.rows;
  args_ = {.rows = scratch.rows,
           .width = part.input_.width,
           .step = part.stride_.width,
           .taps = part.kernel_size_.width,
           .tap_step = part.dilation_.width,
           .channels = part.input_.stride(),
           .filters = part.filters_,
           .sums = scratch.sums};
}

void SparsePart::Sums::find_rows(const Place& place) {
  const Shape& input = part_.input_;
  const std::int64_t top = place.y * part_.stride_.height - part_.padding_.height;
  const std::int64_t row_weights = part_.kernel_size_.width * input.stride() * part_.filters_;
  args_.row_count = 0;
  for (std::int64_t ky = 0; ky < part_.kernel_size_.height; ++ky) {
    const std::int64_t y = top + ky * part_.dilation_.height;
    if (y < 0 || y >= input.height) continue;
    rows_[args_.row_count++] = {.outliers = source_.row(place.n * input.height + y),
                                .weights = part_.weights_.data() + ky * row_weights};
  }
  y_ = place.y;
  n_ = place.n;
}

template <typename Visit>
bool SparsePart::Sums::visit_rows(Place place, std::int64_t count, const Visit& visit) {
  for (std::int64_t done = 0; done < count; done += args_.pixels) {
    if (place.y != y_ || place.n != n_) find_rows(place);
    args_.first = place.x * part_.stride_.width - part_.padding_.width;
    args_.pixels = std::min(count - done, part_.output_.width - place.x);
    if (!visit(done)) return false;
    place.x = 0;
    if (++place.y < part_.output_.height) continue;
    place.y = 0;
    ++place.n;
  }
  return true;
}

const half* SparsePart::Sums::of(const Place& place, std::int64_t count) {
  half* const first = args_.sums;
  const bool fit = visit_rows(place, count, [&](std::int64_t done) {
    args_.sums = first + done * part_.filters_;
    return part_.kernel_->function(args_);
  });
  args_.sums = first;
  return fit ? first : nullptr;
}

void SparsePart::Sums::to_floats(const Place& place, std::int64_t count, float* sums) {
  visit_rows(place, count, [&](std::int64_t done) {
    sum_outliers(args_, sums + done * part_.filters_);
    return true;
  });
}

}  // namespace qpp
