// SPDX-License-Identifier: Apache-2.0
#include "ops/concat.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/align.h"
#include "ops/copy_pixels.h"

namespace qpp {
namespace {

constexpr std::int64_t kBlockBytes = 1 << 14;  // that are converted at once, in the L1 cache

}  // namespace

Concat::Concat(std::string name, ConcatTypes types, const KernelSelection& selection)
    : name_(std::move(name)),
      types_(std::move(types)),
      requantize_(&selection.requantize()),
      dequantize_(&selection.dequantize()) {}

std::string Concat::kernel() const {
  if (types_.src == DType::f16) return "";
  return types_.dst == DType::f16 ? dequantize_->info.name : requantize_->info.name;
}

Shape Concat::prepare(std::span<const Shape> inputs, int threads) {
  threads_ = threads;
  output_ = inputs[0];
  output_.channels = 0;
  std::int64_t widest = 0;
  for (const Shape& input : inputs) {
    QPP_CHECK(input.batch == output_.batch && input.height == output_.height &&
                  input.width == output_.width,
              ShapeError, "node '", name_,
              "' (concat): expected inputs that differ in channels only, got ",
              to_string(inputs[0]), " and ", to_string(input));
    output_.channels += input.channels;
    widest = std::max(widest, input.stride());
  }
  const std::int64_t pixel_bytes = widest * static_cast<std::int64_t>(size_of(types_.dst));
  block_ = std::max<std::int64_t>(kBlockBytes / pixel_bytes, 1);
  block_bytes_ = types_.src == DType::f16
                     ? 0
                     : round_up(static_cast<std::size_t>(block_ * pixel_bytes), kAlignment);
  return output_;
}

std::size_t Concat::scratch_bytes() const {
  return static_cast<std::size_t>(threads_) * block_bytes_;
}

const std::byte* Concat::convert(const RunArgs& args, const RunState& state, std::size_t input,
                                 std::int64_t pixel, std::int64_t count, std::byte* scratch) const {
  const TensorView& view = args.inputs[input];
  const std::int64_t stride = view.shape.stride();
  const std::byte* src = static_cast<const std::byte*>(view.data) +
                         pixel * stride * static_cast<std::int64_t>(size_of(view.dtype));
  if (types_.src == DType::f16) return src;
  const QParams& row = state.qparams[static_cast<std::size_t>(types_.src_rows[input])];
  if (types_.dst == DType::f16) {
    dequantize_->function({.src = reinterpret_cast<const std::int8_t*>(src),
                           .dst = reinterpret_cast<half*>(scratch),
                           .count = count * stride,
                           .scale = row.scale,
                           .zero_point = row.zero_point});
    return scratch;
  }
  requantize_->function({.src = reinterpret_cast<const std::int8_t*>(src),
                         .dst = reinterpret_cast<std::int8_t*>(scratch),
                         .count = count * stride,
                         .levels = make_requantize_levels(
                             row, state.qparams[static_cast<std::size_t>(types_.dst_row)])});
  return scratch;
}

void Concat::run(const RunArgs& args, RunState& state) const {
  const auto bytes = static_cast<std::int64_t>(size_of(types_.dst));
  const std::int64_t pixel_bytes = output_.stride() * bytes;
  auto* dst = static_cast<std::byte*>(args.output.data);
  state.pool.parallel_for(output_.pixels(), [&](std::int64_t begin, std::int64_t end, int thread) {
    std::byte* scratch = args.scratch + static_cast<std::size_t>(thread) * block_bytes_;
    for (std::int64_t first = begin; first < end; first += block_) {
      const std::int64_t count = std::min(block_, end - first);
      std::byte* out = dst + first * pixel_bytes;
      // The padding is part of the last of these; channels follow.
      const std::int64_t tail = kChannelPadding * bytes;
      for (std::int64_t p = 1; p <= count; ++p)
        std::fill_n(out + p * pixel_bytes - tail, tail, std::byte{});
      for (std::size_t i = 0; i < args.inputs.size(); ++i) {
        const Shape& shape = args.inputs[i].shape;
        copy_pixels({.src = convert(args, state, i, first, count, scratch),
                     .dst = out,
                     .src_pixel = shape.stride() * bytes,
                     .dst_pixel = pixel_bytes,
                     .bytes = shape.channels * bytes},
                    count);
        out += shape.channels * bytes;
      }
    }
  });
}

Int8Trait ConcatSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::propagates};
}

Operation ConcatSpec::parse(const NodeFields& node) {
  node.expect_no_attributes();
  node.expect_no_tensors();
  return {.make = [name = node.name](const OpTypes& types, const OpContext& context) {
    std::vector<int> rows;
    for (const OperandType& input : types.inputs) rows.push_back(input.row);
    return std::make_unique<Concat>(name,
                                    ConcatTypes{.src = types.inputs[0].dtype,
                                                .dst = types.output.dtype,
                                                .src_rows = std::move(rows),
                                                .dst_row = types.output.row},
                                    context.selection);
  }};
}

}  // namespace qpp
