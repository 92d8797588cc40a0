// SPDX-License-Identifier: Apache-2.0
#include "ops/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "base/json_field.h"

namespace qpp {
namespace {

struct Axis {
  std::int64_t input;
  std::int64_t output;
  double scale;
};

/// The distance of the sources of neighbouring pixels, by PyTorch's rules in its float arithmetic.
float step_of(const Axis& axis, const ResizeSpec& spec) {
  const auto input = static_cast<float>(axis.input);
  if (spec.align_corners)
    return axis.output > 1 ? (input - 1) / static_cast<float>(axis.output - 1) : 0;
  const bool keeps = spec.mode != ResizeMode::nearest_exact && axis.output == axis.input;
  const bool doubles = spec.mode == ResizeMode::nearest && axis.output == 2 * axis.input;
  const bool snaps = spec.snap_scale && (keeps || doubles);
  if (spec.size || snaps) return input / static_cast<float>(axis.output);
  return static_cast<float>(1.0 / axis.scale);
}

/// Sources of every output row or column.
std::vector<ResizeTap> make_taps(const Axis& axis, const ResizeSpec& spec) {
  std::vector<ResizeTap> taps(static_cast<std::size_t>(axis.output));
  const float step = step_of(axis, spec);
  const ResizeMode mode = spec.mode;
  for (std::int64_t i = 0; i < axis.output; ++i) {
    ResizeTap& tap = taps[static_cast<std::size_t>(i)];
    const auto index = static_cast<float>(i);
    float place = step * index;
    if (mode == ResizeMode::nearest_exact) place = step * (index + 0.5F);
    if (mode == ResizeMode::bilinear && !spec.align_corners)
      place = std::max(step * (index + 0.5F) - 0.5F, 0.0F);
    const std::int64_t first = std::min(static_cast<std::int64_t>(place), axis.input - 1);
    const std::int64_t second =
        mode == ResizeMode::bilinear ? std::min(first + 1, axis.input - 1) : first;
    const float weight =
        second == first ? 0.0F : std::clamp(place - static_cast<float>(first), 0.0F, 1.0F);
    tap.first = static_cast<std::int32_t>(first);
    tap.second = static_cast<std::int32_t>(second);
    tap.weight = to_half(weight);
  }
  return taps;
}

/// A weight in units of 2^-8.
int fixed(const ResizeTap& tap) {
  return static_cast<int>(std::nearbyint(to_float(tap.weight) * 256));
}

}  // namespace

Resize::Resize(ResizeSpec spec, DType dtype, const KernelSelection& selection)
    : spec_(std::move(spec)), dtype_(dtype), kernel_(&selection.resize(dtype, dtype)) {}

std::string Resize::kernel() const {
  return spec_.mode == ResizeMode::bilinear ? kernel_->info.name : "";
}

Shape Resize::prepare(std::span<const Shape> inputs, int /*threads*/) {
  input_ = output_ = inputs[0];
  const auto scaled = [](std::int64_t size, double scale) {
    return static_cast<std::int64_t>(std::floor(static_cast<double>(size) * scale));
  };
  output_.height = spec_.size ? spec_.size->height : scaled(input_.height, spec_.scale_height);
  output_.width = spec_.size ? spec_.size->width : scaled(input_.width, spec_.scale_width);
  QPP_CHECK(output_.height > 0 && output_.width > 0, ShapeError, "node '", spec_.name,
            "' (resize): the output would be empty for the input ", to_string(input_));
  rows_ = make_taps({input_.height, output_.height, spec_.scale_height}, spec_);
  columns_ = make_taps({input_.width, output_.width, spec_.scale_width}, spec_);
  if (dtype_ == DType::qai8 && spec_.mode == ResizeMode::bilinear) weigh_corners();
  groups_.clear();
  for (std::size_t y = 0; y < rows_.size(); ++y) {
    const bool joins =
        y > 0 && rows_[y].first == rows_[y - 1].first && rows_[y].second == rows_[y - 1].second;
    if (!joins) groups_.push_back(static_cast<std::int64_t>(y));
  }
  return output_;
}

void Resize::weigh_corners() {
  // A pixel that is on a column takes half of it twice: the weight 256 does not fit.
  for (ResizeTap& column : columns_) {
    if (fixed(column) == 256) column.first = column.second;
    if (fixed(column) == 0 || fixed(column) == 256) {
      column.second = column.first;
      column.weight = to_half(0.5F);
    }
  }
  // Rows at the same distances share weights.
  constexpr int kSteps = 257;
  std::array<std::ptrdiff_t, kSteps> begins;
  begins.fill(-1);
  corner_weights_.clear();
  for (const ResizeTap& row : rows_) {
    const int down = fixed(row);
    std::ptrdiff_t& begin = begins[static_cast<std::size_t>(down)];
    if (begin >= 0) continue;
    begin = static_cast<std::ptrdiff_t>(corner_weights_.size());
    for (const ResizeTap& column : columns_) {
      const int across = fixed(column);
      const int both = (down * across + 128) >> 8;
      for (const int weight : {256 - down - across + both, across - both, down - both, both})
        corner_weights_.push_back(static_cast<std::uint8_t>(weight));
    }
  }
  row_corners_.clear();
  for (const ResizeTap& row : rows_)
    row_corners_.push_back(corner_weights_.data() + begins[static_cast<std::size_t>(fixed(row))]);
}

void Resize::run_group(const RunArgs& args, std::int64_t image, std::int64_t first,
                       std::int64_t last) const {
  const auto bytes = static_cast<std::int64_t>(size_of(dtype_));
  const std::int64_t pixel_bytes = input_.stride() * bytes;
  const std::int64_t row_bytes = output_.width * pixel_bytes;
  const auto* src = static_cast<const std::byte*>(args.inputs[0].data);
  const auto source_row = [&](std::int64_t y) {
    return src + (image * input_.height + y) * input_.width * pixel_bytes;
  };
  const auto number = static_cast<std::size_t>(first);
  const ResizeTap& tap = rows_[number];
  std::byte* dst =
      static_cast<std::byte*>(args.output.data) + (image * output_.height + first) * row_bytes;
  if (spec_.mode == ResizeMode::bilinear) {
    kernel_->function({.top = source_row(tap.first),
                       .bottom = source_row(tap.second),
                       .columns = columns_.data(),
                       .pixel_count = output_.width,
                       .rows = &tap,
                       .corners = row_corners_.empty() ? nullptr : &row_corners_[number],
                       .row_count = last - first,
                       .channels = input_.stride(),
                       .dst = dst});
    return;
  }
  for (std::int64_t x = 0; x < output_.width; ++x) {
    std::memcpy(dst + x * pixel_bytes,
                source_row(tap.first) + columns_[static_cast<std::size_t>(x)].first * pixel_bytes,
                static_cast<std::size_t>(pixel_bytes));
  }
  for (std::int64_t y = first + 1; y < last; ++y)
    std::memcpy(dst + (y - first) * row_bytes, dst, static_cast<std::size_t>(row_bytes));
}

void Resize::run(const RunArgs& args, RunState& state) const {
  const auto groups = static_cast<std::int64_t>(groups_.size());
  state.pool.parallel_for(output_.batch * groups, [&](std::int64_t begin, std::int64_t end,
                                                      int /*thread*/) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto group = static_cast<std::size_t>(i % groups);
      const std::int64_t last = group + 1 < groups_.size() ? groups_[group + 1] : output_.height;
      run_group(args, i / groups, groups_[group], last);
    }
  });
}

namespace {

double parse_scale(const Field& field) {
  constexpr double kMaxScale = 256;
  const double scale = field.number();
  QPP_CHECK(scale >= 1 / kMaxScale && scale <= kMaxScale, ModelError, field.where(),
            ": expected a scale from 1/256 to 256, got ", scale);
  return scale;
}

ResizeMode parse_mode(const NodeFields& node) {
  static const std::map<std::string, ResizeMode> kModes = {
      {"nearest", ResizeMode::nearest},
      {"nearest-exact", ResizeMode::nearest_exact},
      {"bilinear", ResizeMode::bilinear}};
  const std::string name = node.attributes["mode"].string();
  const auto mode = kModes.find(name);
  QPP_CHECK(mode != kModes.end(), UnsupportedError, node.where,
            ": expected the mode nearest, nearest-exact or bilinear, got \"", name, "\"");
  return mode->second;
}

ResizeSpec parse_resize(const NodeFields& node) {
  const Field& attributes = node.attributes;
  attributes.only({"mode", "align_corners", "size", "scale", "snap_scale"});
  node.expect_no_tensors();
  ResizeSpec spec{.name = node.name,
                  .mode = parse_mode(node),
                  .align_corners = attributes["align_corners"].boolean(),
                  .size = {}};
  QPP_CHECK(attributes.has("size") != attributes.has("scale"), ModelError, node.where,
            ": expected either a size or a scale");
  QPP_CHECK(!attributes.has("snap_scale") || attributes.has("scale"), ModelError, node.where,
            ": snap_scale belongs to a scale");
  QPP_CHECK(!spec.align_corners || spec.mode == ResizeMode::bilinear, ModelError, node.where,
            ": align_corners belongs to the mode bilinear");
  if (attributes.has("size")) {
    spec.size = parse_size(attributes["size"], node.limits);
  } else {
    const std::vector<Field> scales = attributes["scale"].list(2);
    spec.scale_height = parse_scale(scales[0]);
    spec.scale_width = parse_scale(scales[1]);
    if (attributes.has("snap_scale")) spec.snap_scale = attributes["snap_scale"].boolean();
  }
  return spec;
}

}  // namespace

Int8Trait ResizeSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::shares_qparams};
}

Operation ResizeSpec::parse(const NodeFields& node) {
  return {.make = [spec = parse_resize(node)](const OpTypes& types, const OpContext& context) {
    return std::make_unique<Resize>(spec, types.output.dtype, context.selection);
  }};
}

}  // namespace qpp
