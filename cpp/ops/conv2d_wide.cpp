// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d_wide.h"

#include <algorithm>
#include <array>

#include "ops/conv_output.h"

namespace qpp {
namespace {

/// Bytes of the parts of the scratch memory of a thread: correction, multiplier, bias, sums, tile.
std::array<std::size_t, 5> part_bytes(std::size_t filters, std::int64_t pixels,
                                      std::int64_t stride) {
  const auto elements = static_cast<std::size_t>(pixels * stride);
  return {round_up(filters * sizeof(std::int32_t), kAlignment),
          round_up(filters * sizeof(float), kAlignment),
          round_up(filters * sizeof(float), kAlignment),
          round_up(elements * sizeof(float), kAlignment),
          round_up(elements * sizeof(half), kAlignment)};
}

}  // namespace

std::size_t Conv2d::WideTile::scratch_bytes(const Conv2d& conv) {
  std::size_t bytes = 0;
  for (const std::size_t part :
       part_bytes(conv.weights_.scales.size(), conv.kernel_->mr, conv.output_.stride())) {
    bytes += part;
  }
  return bytes;
}

Conv2d::WideTile::WideTile(const Conv2d& conv, const RunState& state, std::byte* scratch)
    : conv_(conv), state_(state) {
  const auto bytes =
      part_bytes(conv.weights_.scales.size(), conv.kernel_->mr, conv.output_.stride());
  correction_ = reinterpret_cast<std::int32_t*>(scratch);
  multiplier_ = reinterpret_cast<float*>(scratch += bytes[0]);
  bias_ = reinterpret_cast<float*>(scratch += bytes[1]);
  sums_ = reinterpret_cast<float*>(scratch += bytes[2]);
  tile_ = reinterpret_cast<half*>(scratch + bytes[3]);
}

const half* Conv2d::WideTile::compute(ConvArgs args, bool sparse) {
  // The dense part: without bias, residual and activation.
  const Conv2dTypes types{.src = DType::qai8, .src_row = conv_.types_.src_row};
  const OutputStage dense =
      fill_output_stage(types, {}, conv_.weights_, {}, state_,
                        {.correction = correction_, .multiplier = multiplier_, .bias = bias_});
  const void* const residual = args.residual;
  args.residual = nullptr;
  args.sparse = nullptr;
  args.dst = tile_;
  args.output = &dense;
  conv_.wide_kernel_->function(args);

  OutputStage stage;
  stage.nonlinearity = conv_.activation_.nonlinearity;
  stage.lo = conv_.activation_.lo;
  stage.hi = conv_.activation_.hi;
  if (conv_.types_.residual) {
    const int row = conv_.types_.residual_row;
    const QParams scale = row < 0 ? QParams{} : state_.qparams[static_cast<std::size_t>(row)];
    stage.residual = {
        .dtype = *conv_.types_.residual, .scale = scale.scale, .zero_point = scale.zero_point};
  }
  const float src_scale = state_.qparams[static_cast<std::size_t>(types.src_row)].scale;
  for (std::int64_t i = 0; i < args.pixel_count * args.filters; ++i) {
    const auto f = static_cast<std::size_t>(i % args.filters);
    std::optional<float> r;
    if (residual != nullptr) r = residual_at(stage.residual, residual, i);
    const float unit = conv_.weights_.scales[f] * src_scale * kSparseUnit;
    const float level =
        output_level(stage, sparse ? sums_[i] : 0, unit, to_float(tile_[i]) + conv_.bias_[f], r);
    tile_[i] = to_half(level);
  }
  return tile_;
}

}  // namespace qpp
