// SPDX-License-Identifier: Apache-2.0
#include "ops/pool.h"

#include <algorithm>
#include <memory>
#include <set>

#include "base/json_field.h"

namespace qpp {
namespace {

/// Windows along one axis of an image.
struct Axis {
  std::int64_t size;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t before;  // padding
  std::int64_t after;
  std::int64_t dilation;
};

std::vector<PoolSpan> slide(const Axis& axis, bool ceil_mode) {
  const std::int64_t effective = axis.dilation * (axis.kernel - 1) + 1;
  // In ceil mode a window, even the only one, may exceed the padded image by less than a
  // stride, but starts before the right padding.
  const std::int64_t room =
      axis.size + axis.before + axis.after - effective + (ceil_mode ? axis.stride - 1 : 0);
  if (room < 0) return {};
  std::int64_t count = room / axis.stride + 1;
  if ((count - 1) * axis.stride >= axis.size + axis.before) --count;
  std::vector<PoolSpan> spans;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = i * axis.stride - axis.before;
    const std::int64_t skipped =
        std::max<std::int64_t>(-begin + axis.dilation - 1, 0) / axis.dilation;
    const std::int64_t end =
        std::min(axis.kernel, (axis.size - begin + axis.dilation - 1) / axis.dilation);
    spans.push_back({.first = begin + skipped * axis.dilation,
                     .length = end - skipped,
                     .padded = std::min(begin + axis.kernel, axis.size + axis.after) - begin});
  }
  return spans;
}

/// `count` windows that together cover an axis, as PyTorch's adaptive pools lay them.
std::vector<PoolSpan> divide(std::int64_t size, std::int64_t count) {
  std::vector<PoolSpan> spans;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = i * size / count;
    const std::int64_t length = ((i + 1) * size + count - 1) / count - first;
    spans.push_back({.first = first, .length = length, .padded = length});
  }
  return spans;
}

std::int64_t longest(const std::vector<PoolSpan>& spans) {
  std::int64_t length = 0;
  for (const PoolSpan& span : spans) length = std::max(length, span.length);
  return length;
}

}  // namespace

/// Walks rows of the output. Windows of one width at equal distances go to the kernel at once.
class Pool::Rows {
 public:
  Rows(const Pool& pool, const RunArgs& run, const RunState& state, int thread)
      : pool_(pool), dilation_(pool.spec_.dilation) {
    sources_ = reinterpret_cast<const void**>(run.scratch) + thread * pool.max_sources_;
    src_ = static_cast<const std::byte*>(run.inputs[0].data);
    dst_ = static_cast<std::byte*>(run.output.data);
    src_pixel_ = bytes(pool.types_.src);
    dst_pixel_ = bytes(pool.types_.dst);
    args_.rows = sources_;
    args_.channels = pool.input_.stride();
    args_.stride = pool.stride_;
    if (pool.spec_.kind == PoolKind::max) return;
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
    const PoolSpan& rows = pool_.rows_[static_cast<std::size_t>(row % pool_.output_.height)];
    for (std::int64_t x = 0; x < pool_.output_.width;) {
      const PoolSpan& columns = column(x);
      std::int64_t count = 1;
      while (x + count < pool_.output_.width && follows(columns, column(x + count), count)) ++count;
      point_at_sources(n * input.height, rows, columns);
      args_.pixel_count = count;
      args_.dst = dst_ + (row * pool_.output_.width + x) * dst_pixel_;
      const std::int64_t inside = rows.length * columns.length;
      args_.correction = static_cast<std::int32_t>(-src_row_.zero_point * inside);
      args_.multiplier = scale_ / static_cast<float>(divisor(rows, columns));
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
  [[nodiscard]] const PoolSpan& column(std::int64_t x) const {
    return pool_.columns_[static_cast<std::size_t>(x)];
  }
  /// Whether a window `count` further right is the first one moved by whole strides.
  [[nodiscard]] bool follows(const PoolSpan& first, const PoolSpan& other,
                             std::int64_t count) const {
    return other.length == first.length && other.first == first.first + count * pool_.stride_;
  }
  [[nodiscard]] std::int64_t divisor(const PoolSpan& rows, const PoolSpan& columns) const {
    if (pool_.spec_.divisor) return *pool_.spec_.divisor;
    if (pool_.spec_.count_include_pad) return rows.padded * columns.padded;
    return rows.length * columns.length;
  }
  /// The rows of a window; of one with holes, its elements.
  void point_at_sources(std::int64_t image_row, const PoolSpan& rows, const PoolSpan& columns) {
    const bool holes = dilation_.width > 1;
    const std::int64_t steps = holes ? columns.length : 1;
    args_.row_count = rows.length * steps;
    args_.width = holes ? 1 : columns.length;
    std::int64_t count = 0;
    for (std::int64_t r = 0; r < rows.length; ++r) {
      const std::int64_t y = image_row + rows.first + r * dilation_.height;
      for (std::int64_t k = 0; k < steps; ++k) {
        const std::int64_t x = columns.first + k * dilation_.width;
        sources_[count++] = src_ + (y * pool_.input_.width + x) * src_pixel_;
      }
    }
  }

  const Pool& pool_;
  Size2d dilation_;
  const void** sources_;
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
      kernel_(spec.kind == PoolKind::max ? &selection.maxpool(types.dst, types.dst)
                                         : &selection.avgpool(types.dst, types.src)) {}

std::string Pool::kind() const {
  std::string kind = spec_.kind == PoolKind::max ? "max_pool2d" : "avg_pool2d";
  if (!spec_.size) return kind;
  const bool is_mean =
      spec_.kind == PoolKind::average && spec_.size->height * spec_.size->width == 1;
  return is_mean ? "global_avg_pool" : "adaptive_" + kind;
}

Shape Pool::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  input_ = output_ = inputs[0];
  stride_ = spec_.stride.width;
  if (spec_.size) {
    rows_ = divide(input_.height, spec_.size->height);
    columns_ = divide(input_.width, spec_.size->width);
    if (columns_.size() > 1) stride_ = columns_[1].first - columns_[0].first;
  } else {
    const Padding& padding = spec_.padding;
    rows_ = slide({input_.height, spec_.kernel.height, spec_.stride.height, padding.height,
                   padding.rows() - padding.height, spec_.dilation.height},
                  spec_.ceil_mode);
    columns_ = slide({input_.width, spec_.kernel.width, spec_.stride.width, padding.width,
                      padding.columns() - padding.width, spec_.dilation.width},
                     spec_.ceil_mode);
  }
  output_.height = static_cast<std::int64_t>(rows_.size());
  output_.width = static_cast<std::int64_t>(columns_.size());
  const auto is_empty = [](const std::vector<PoolSpan>& spans) {
    return spans.empty() || std::any_of(spans.begin(), spans.end(),
                                        [](const PoolSpan& span) { return span.length <= 0; });
  };
  QPP_CHECK(!is_empty(rows_) && !is_empty(columns_), ShapeError, "node '", spec_.name, "' (",
            kind(), "): the input ", to_string(input_), " is smaller than the ",
            spec_.kernel.height, "x", spec_.kernel.width, " window");
  const std::int64_t height = longest(rows_);
  const std::int64_t width = longest(columns_);
  QPP_CHECK(height * width < 1 << 23, UnsupportedError, "node '", spec_.name, "' (", kind(),
            "): a window of ", height, "x", width, " pixels is too large");
  max_sources_ = height * (spec_.dilation.width > 1 ? width : 1);
  return output_;
}

std::size_t Pool::scratch_bytes() const {
  return static_cast<std::size_t>(threads_ * max_sources_) * sizeof(void*);
}

void Pool::run(const RunArgs& args, RunState& state) const {
  state.pool.parallel_for(output_.batch * output_.height,
                          [&](std::int64_t begin, std::int64_t end, int thread) {
                            Rows rows(*this, args, state, thread);
                            for (std::int64_t row = begin; row < end; ++row) rows.run(row);
                          });
}

namespace {

void parse_windows(const NodeFields& node, PoolSpec& spec) {
  const Field& attributes = node.attributes;
  std::set<std::string> known{"kernel", "stride", "padding", "ceil_mode"};
  if (spec.kind == PoolKind::average) {
    known.merge(std::set<std::string>{"count_include_pad", "divisor"});
    spec.count_include_pad = attributes["count_include_pad"].boolean();
    if (attributes.has("divisor"))
      spec.divisor = attributes["divisor"].integer(1, node.limits.window);
  } else {
    known.insert("dilation");
    if (attributes.has("dilation")) spec.dilation = parse_size(attributes["dilation"], node.limits);
  }
  attributes.only(known);
  spec.kernel = parse_size(attributes["kernel"], node.limits);
  spec.stride = parse_size(attributes["stride"], node.limits);
  spec.padding = parse_padding(attributes["padding"], node.limits);
  spec.ceil_mode = attributes["ceil_mode"].boolean();
  const auto fits = [](std::int64_t before, std::int64_t both, std::int64_t kernel) {
    return 2 * std::max(before, both - before) <= kernel;
  };
  QPP_CHECK(fits(spec.padding.height, spec.padding.rows(), spec.kernel.height) &&
                fits(spec.padding.width, spec.padding.columns(), spec.kernel.width),
            ModelError, node.where, ": expected a padding of at most half the kernel");
}

PoolKind kind_of(const std::string& op) {
  return op == "max_pool2d" || op == "adaptive_max_pool2d" ? PoolKind::max : PoolKind::average;
}

PoolSpec parse_pool(const NodeFields& node) {
  node.expect_no_tensors();
  PoolSpec spec;
  spec.name = node.name;
  spec.kind = kind_of(node.op);
  if (node.op == "global_avg_pool") {
    node.expect_no_attributes();
    spec.size = Size2d{};
  } else if (node.op.starts_with("adaptive_")) {
    node.attributes.only({"size"});
    spec.size = parse_size(node.attributes["size"], node.limits);
  } else {
    parse_windows(node, spec);
  }
  return spec;
}

}  // namespace

Int8Trait PoolSpec::int8_trait(const NodeSignature& node) {
  const bool is_max = kind_of(node.op) == PoolKind::max;
  return {.role = is_max ? Int8Role::shares_qparams : Int8Role::propagates};
}

Operation PoolSpec::parse(const NodeFields& node) {
  return {.make = [spec = parse_pool(node)](const OpTypes& types, const OpContext& context) {
    return std::make_unique<Pool>(spec,
                                  PoolTypes{.src = types.inputs[0].dtype,
                                            .dst = types.output.dtype,
                                            .src_row = types.inputs[0].row,
                                            .dst_row = types.output.row},
                                  context.selection);
  }};
}

}  // namespace qpp
