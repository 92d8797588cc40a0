// SPDX-License-Identifier: Apache-2.0
#include "ops/slice_pad.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <utility>

#include "base/json_field.h"

namespace qpp {
namespace {

std::vector<std::int64_t> all_of(std::int64_t size) {
  std::vector<std::int64_t> sources(static_cast<std::size_t>(size));
  std::iota(sources.begin(), sources.end(), std::int64_t{0});
  return sources;
}

const std::string& name_of(const std::variant<SliceSpec, PadSpec>& spec) {
  return std::visit([](const auto& any) -> const std::string& { return any.name; }, spec);
}

}  // namespace

SlicePad::SlicePad(std::variant<SliceSpec, PadSpec> spec, DType dtype, int row)
    : spec_(std::move(spec)), dtype_(dtype), row_(row) {}

std::string SlicePad::kind() const {
  return std::holds_alternative<SliceSpec>(spec_) ? "slice" : "pad";
}

SlicePad::Sources SlicePad::slice(const SliceSpec& spec, std::int64_t size) {
  const auto place = [size](std::int64_t index) {
    return std::clamp<std::int64_t>(index < 0 ? index + size : index, 0, size);
  };
  Sources sources;
  const std::int64_t stop = place(spec.stop.value_or(size));
  for (std::int64_t i = place(spec.start); i < stop; i += spec.step) sources.push_back(i);
  return sources;
}

SlicePad::Sources SlicePad::pad(PadMode mode, std::int64_t before, std::int64_t after,
                                std::int64_t size) {
  Sources sources;
  for (std::int64_t i = -before; i < size + after; ++i) {
    std::int64_t source = std::clamp<std::int64_t>(i, 0, size - 1);
    if (source != i && mode == PadMode::zeros) source = kZero;
    if (source != i && mode == PadMode::reflect) source = 2 * source - i;
    sources.push_back(source);
  }
  return sources;
}

Shape SlicePad::prepare(std::span<const Shape> inputs, int /*threads*/) {
  input_ = output_ = inputs[0];
  rows_ = all_of(input_.height);
  columns_ = all_of(input_.width);
  channels_ = all_of(input_.channels);
  if (const auto* part = std::get_if<SliceSpec>(&spec_)) {
    if (part->axis == 1) channels_ = slice(*part, input_.channels);
    if (part->axis == 2) rows_ = slice(*part, input_.height);
    if (part->axis == 3) columns_ = slice(*part, input_.width);
  } else {
    const auto& [name, mode, padding] = std::get<PadSpec>(spec_);
    const std::int64_t below = padding.rows() - padding.height;
    const std::int64_t right = padding.columns() - padding.width;
    QPP_CHECK(mode != PadMode::reflect || (std::max(padding.height, below) < input_.height &&
                                           std::max(padding.width, right) < input_.width),
              ShapeError, "node '", name, "' (pad): the input ", to_string(input_),
              " is too small to be reflected");
    rows_ = pad(mode, padding.height, below, input_.height);
    columns_ = pad(mode, padding.width, right, input_.width);
  }
  QPP_CHECK(!rows_.empty() && !columns_.empty() && !channels_.empty(), ShapeError, "node '",
            name_of(spec_), "' (", kind(), "): the output would be empty for the input ",
            to_string(input_));
  output_.height = static_cast<std::int64_t>(rows_.size());
  output_.width = static_cast<std::int64_t>(columns_.size());
  output_.channels = static_cast<std::int64_t>(channels_.size());
  return output_;
}

void SlicePad::run(const RunArgs& args, RunState& state) const {
  const std::size_t bytes = size_of(dtype_);
  const std::size_t src_pixel = static_cast<std::size_t>(input_.stride()) * bytes;
  const std::size_t dst_pixel = static_cast<std::size_t>(output_.stride()) * bytes;
  const int zero =
      dtype_ == DType::qai8 ? state.qparams[static_cast<std::size_t>(row_)].zero_point : 0;
  const std::int64_t count = output_.channels;
  const bool adjacent = channels_.back() - channels_.front() == count - 1;
  const auto copy_pixel = [&](std::byte* dst, const std::byte* src) {
    if (adjacent) {
      std::memcpy(dst, src + static_cast<std::size_t>(channels_[0]) * bytes,
                  static_cast<std::size_t>(count) * bytes);
    } else {
      for (std::size_t c = 0; c < channels_.size(); ++c)
        std::memcpy(dst + c * bytes, src + static_cast<std::size_t>(channels_[c]) * bytes, bytes);
    }
    const std::size_t filled = static_cast<std::size_t>(count) * bytes;
    std::memset(dst + filled, zero, dst_pixel - filled);
  };
  state.pool.parallel_for(
      output_.batch * output_.height, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t y = rows_[static_cast<std::size_t>(row % output_.height)];
          const std::int64_t first = (row / output_.height * input_.height + y) * input_.width;
          std::byte* dst = static_cast<std::byte*>(args.output.data) +
                           static_cast<std::size_t>(row * output_.width) * dst_pixel;
          for (const std::int64_t x : columns_) {
            if (y == kZero || x == kZero) {
              std::memset(dst, zero, dst_pixel);
            } else {
              copy_pixel(dst, static_cast<const std::byte*>(args.inputs[0].data) +
                                  static_cast<std::size_t>(first + x) * src_pixel);
            }
            dst += dst_pixel;
          }
        }
      });
}

namespace {

SliceSpec parse_slice(const NodeFields& node) {
  const Field& attributes = node.attributes;
  const std::int64_t limit = node.limits.dimension;
  attributes.only({"axis", "start", "stop", "step"});
  SliceSpec spec{.name = node.name,
                 .axis = static_cast<int>(attributes["axis"].integer(1, 3)),
                 .start = attributes["start"].integer(-limit, limit),
                 .stop = std::nullopt,
                 .step = attributes["step"].integer(1, limit)};
  if (!attributes["stop"].is_null()) spec.stop = attributes["stop"].integer(-limit, limit);
  return spec;
}

PadSpec parse_pad(const NodeFields& node) {
  static const std::map<std::string, PadMode> kModes = {
      {"zeros", PadMode::zeros}, {"reflect", PadMode::reflect}, {"replicate", PadMode::replicate}};
  node.attributes.only({"padding", "mode"});
  const std::string name = node.attributes["mode"].string();
  const auto mode = kModes.find(name);
  QPP_CHECK(mode != kModes.end(), UnsupportedError, node.where,
            ": expected the mode zeros, reflect or replicate, got \"", name, "\"");
  const std::int64_t lowest = mode->second == PadMode::zeros ? -node.limits.window : 0;
  std::vector<std::int64_t> sides;
  for (const Field& side : node.attributes["padding"].list(4))
    sides.push_back(side.integer(lowest, node.limits.window));
  return {.name = node.name, .mode = mode->second, .padding = padding_of(sides)};
}

Operation select(const NodeFields& node, const std::variant<SliceSpec, PadSpec>& spec) {
  node.expect_no_tensors();
  return {.make = [spec](const OpTypes& types, const OpContext& /*context*/) {
    return std::make_unique<SlicePad>(spec, types.output.dtype, types.inputs[0].row);
  }};
}

}  // namespace

Int8Trait SliceSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::shares_qparams};
}

Operation SliceSpec::parse(const NodeFields& node) { return select(node, parse_slice(node)); }

Int8Trait PadSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::shares_qparams};
}

Operation PadSpec::parse(const NodeFields& node) { return select(node, parse_pad(node)); }

}  // namespace qpp
