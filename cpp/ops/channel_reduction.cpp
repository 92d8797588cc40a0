// SPDX-License-Identifier: Apache-2.0
#include "ops/channel_reduction.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "base/half.h"

namespace qpp {
namespace {

constexpr std::int64_t kMaxClasses = 2048;  // the integers that fp16 holds exactly

/// The first largest channel; a NaN counts as larger.
std::int64_t largest(const half* pixel, std::int64_t channels) {
  std::int64_t best = 0;
  for (std::int64_t c = 1; c < channels && !std::isnan(to_float(pixel[best])); ++c) {
    if (!(to_float(pixel[c]) <= to_float(pixel[best]))) best = c;
  }
  return best;
}

void softmax(const half* src, half* dst, std::int64_t channels, bool log) {
  const float peak = to_float(src[largest(src, channels)]);
  float sum = 0;
  for (std::int64_t c = 0; c < channels; ++c) sum += std::exp(to_float(src[c]) - peak);
  const float log_sum = std::log(sum);
  for (std::int64_t c = 0; c < channels; ++c) {
    const float y = to_float(src[c]) - peak - log_sum;
    dst[c] = to_half(log ? y : std::exp(y));
  }
}

}  // namespace

std::string ChannelReduction::kind() const {
  switch (spec_.kind) {
    case ChannelReductionKind::softmax:
      return "softmax";
    case ChannelReductionKind::log_softmax:
      return "log_softmax";
    case ChannelReductionKind::argmax:
      return "argmax";
  }
  return "?";
}

Shape ChannelReduction::prepare(std::span<const Shape> inputs, int /*threads*/) {
  Shape output = inputs[0];
  if (spec_.kind == ChannelReductionKind::argmax) {
    QPP_CHECK(output.channels <= kMaxClasses, UnsupportedError, "node '", spec_.name,
              "' (argmax): indices are fp16 numbers, exact up to ", kMaxClasses, ", got ",
              to_string(output));
    output.channels = 1;
  }
  return output;
}

void ChannelReduction::run(const RunArgs& args, RunState& state) const {
  const Shape& src_shape = args.inputs[0].shape;
  const Shape& dst_shape = args.output.shape;
  state.pool.parallel_for(
      src_shape.pixels(), [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
          const half* src = args.inputs[0].as<half>() + pixel * src_shape.stride();
          half* dst = args.output.as<half>() + pixel * dst_shape.stride();
          if (spec_.kind == ChannelReductionKind::argmax) {
            dst[0] = to_half(static_cast<float>(largest(src, src_shape.channels)));
          } else {
            softmax(src, dst, src_shape.channels, spec_.kind == ChannelReductionKind::log_softmax);
          }
          std::fill(dst + dst_shape.channels, dst + dst_shape.stride(), half{});
        }
      });
}

Int8Trait ChannelReductionSpec::int8_trait(const NodeSignature& /*node*/) { return {}; }

Operation ChannelReductionSpec::parse(const NodeFields& node) {
  static const std::map<std::string, ChannelReductionKind> kKinds = {
      {"softmax", ChannelReductionKind::softmax},
      {"log_softmax", ChannelReductionKind::log_softmax},
      {"argmax", ChannelReductionKind::argmax}};
  node.expect_no_attributes();
  node.expect_no_tensors();
  const ChannelReductionSpec spec{.name = node.name, .kind = kKinds.at(node.op)};
  return {.make = [spec](const OpTypes& /*types*/, const OpContext& /*context*/) {
    return std::make_unique<ChannelReduction>(spec);
  }};
}

}  // namespace qpp
