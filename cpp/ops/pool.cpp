// SPDX-License-Identifier: Apache-2.0
#include "ops/pool.h"

#include <algorithm>

namespace qpp {
namespace {

/// The number of windows. In ceil mode one may reach beyond the padded image, but starts within it.
std::int64_t window_count(std::int64_t size, std::int64_t kernel, std::int64_t stride,
                          std::int64_t padding, bool ceil_mode) {
  const std::int64_t room = size + 2 * padding - kernel;
  if (room < 0) return 0;
  const std::int64_t count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  return (count - 1) * stride >= size + padding ? count - 1 : count;
}

/// What a window covers along one axis.
struct Span {
  std::int64_t first;   // inside the image
  std::int64_t length;  // the same
  std::int64_t padded;  // inside the padded image
};

Span span_of(std::int64_t index, std::int64_t size, std::int64_t kernel, std::int64_t stride,
             std::int64_t padding) {
  const std::int64_t begin = index * stride - padding;
  const std::int64_t first = std::max<std::int64_t>(begin, 0);
  return {.first = first,
          .length = std::min(begin + kernel, size) - first,
          .padded = std::min(begin + kernel, size + padding) - begin};
}

}  // namespace

/// Walks rows of the output. Windows of one width that lie side by side go to the kernel at once.
class Pool::Rows {
 public:
  Rows(const Pool& pool, const RunArgs& run, const RunState& state, int thread)
      : pool_(pool), spec_(pool.spec_) {
    rows_ = reinterpret_cast<const void**>(run.scratch) + thread * spec_.kernel.height;
    src_ = static_cast<const std::byte*>(run.inputs[0].data);
    dst_ = static_cast<std::byte*>(run.output.data);
    src_pixel_ = bytes(pool.types_.src);
    dst_pixel_ = bytes(pool.types_.dst);
    args_.rows = rows_;
    args_.channels = pool.input_.stride();
    args_.stride = spec_.stride.width;
    if (spec_.kind == PoolKind::max) return;
    if (pool.types_.src == DType::qai8) src_row_ = row(state, pool.types_.src_row);
    if (pool.types_.dst == DType::qai8) {
      const QParams dst = row(state, pool.types_.dst_row);
      scale_ = src_row_.scale * dst.inverse_scale;
      args_.lo = static_cast<float>(dst.qmin - dst.zero_point);
      args_.hi = static_cast<float>(dst.qmax - dst.zero_point);
      args_.zero_point = dst.zero_point;
    } else {
      scale_ = src_row_.scale;
    }
  }

  void run(std::int64_t row) {
    const Shape& input = pool_.input_;
    const std::int64_t n = row / pool_.output_.height;
    const Span rows = span_of(row % pool_.output_.height, input.height, spec_.kernel.height,
                              spec_.stride.height, spec_.padding.height);
    std::int64_t x = 0;
    while (x < pool_.output_.width) {
      const Span columns = span_at(x);
      std::int64_t count = 1;
      while (x + count < pool_.output_.width && alike(columns, span_at(x + count))) ++count;
      for (std::int64_t r = 0; r < rows.length; ++r) {
        const std::int64_t pixel =
            (n * input.height + rows.first + r) * input.width + columns.first;
        rows_[r] = src_ + pixel * src_pixel_;
      }
      args_.row_count = rows.length;
      args_.width = columns.length;
      args_.pixel_count = count;
      args_.dst = dst_ + (row * pool_.output_.width + x) * dst_pixel_;
      const std::int64_t inside = rows.length * columns.length;
      const std::int64_t counted = spec_.count_include_pad ? rows.padded * columns.padded : inside;
      args_.correction = static_cast<std::int32_t>(-src_row_.zero_point * inside);
      args_.multiplier = scale_ / static_cast<float>(counted);
      pool_.kernel_->function(args_);
      x += count;
    }
  }

 private:
  static QParams row(const RunState& state, int index) {
    return state.qparams[static_cast<std::size_t>(index)];
  }
  [[nodiscard]] std::int64_t bytes(DType dtype) const {
    return pool_.input_.stride() * static_cast<std::int64_t>(size_of(dtype));
  }
  [[nodiscard]] Span span_at(std::int64_t x) const {
    return span_of(x, pool_.input_.width, spec_.kernel.width, spec_.stride.width,
                   spec_.padding.width);
  }
  /// Whether a window further right is the first one moved by whole strides: neither is cut.
  [[nodiscard]] bool alike(const Span& first, const Span& other) const {
    return first.length == spec_.kernel.width && other.length == spec_.kernel.width;
  }

  const Pool& pool_;
  const PoolSpec& spec_;
  const void** rows_;
  const std::byte* src_;
  std::byte* dst_;
  std::int64_t src_pixel_ = 0;
  std::int64_t dst_pixel_ = 0;
  QParams src_row_;
  float scale_ = 1;
  PoolArgs args_;
};

Pool::Pool(const PoolSpec& spec, const PoolTypes& types, const KernelSelection& selection)
    : spec_(spec),
      types_(types),
      kernel_(spec.kind == PoolKind::max ? &selection.maxpool(types.dst)
                                         : &selection.avgpool(types.dst, types.src)) {}

std::string Pool::kind() const {
  switch (spec_.kind) {
    case PoolKind::max:
      return "max_pool2d";
    case PoolKind::average:
      return "avg_pool2d";
    case PoolKind::global_average:
      return "global_avg_pool";
  }
  return "?";
}

Shape Pool::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = output_ = inputs[0];
  if (spec_.kind == PoolKind::global_average)
    spec_.kernel = {.height = input_.height, .width = input_.width};
  output_.height = window_count(input_.height, spec_.kernel.height, spec_.stride.height,
                                spec_.padding.height, spec_.ceil_mode);
  output_.width = window_count(input_.width, spec_.kernel.width, spec_.stride.width,
                               spec_.padding.width, spec_.ceil_mode);
  QPP_CHECK(output_.height > 0 && output_.width > 0, ShapeError, "node '", spec_.name, "' (",
            kind(), "): the input ", to_string(input_), " is smaller than the ",
            spec_.kernel.height, "x", spec_.kernel.width, " window");
  QPP_CHECK(spec_.kernel.height * spec_.kernel.width < 1 << 23, UnsupportedError, "node '",
            spec_.name, "' (", kind(), "): a window of ", spec_.kernel.height, "x",
            spec_.kernel.width, " pixels is too large");
  return output_;
}

std::size_t Pool::scratch_bytes() const {
  return static_cast<std::size_t>(threads_ * spec_.kernel.height) * sizeof(void*);
}

void Pool::run(const RunArgs& args, RunState& state) const {
  state.pool.parallel_for(output_.batch * output_.height,
                          [&](std::int64_t begin, std::int64_t end, int thread) {
                            Rows rows(*this, args, state, thread);
                            for (std::int64_t row = begin; row < end; ++row) rows.run(row);
                          });
}

}  // namespace qpp
