// SPDX-License-Identifier: Apache-2.0
#include "ops/conv2d_wide.h"

#include "base/memory_layout.h"
#include "ops/conv_output.h"

namespace qpp {

Conv2d::WideTile::Scratch Conv2d::WideTile::lay_out(const Conv2d& conv, std::byte* base) {
  Scratch scratch{};
  MemoryLayout layout(base);
  const auto filters = static_cast<std::int64_t>(conv.weights_.scales.size());
  const std::int64_t elements = conv.kernel_->mr * conv.output_.stride();
  layout.add(scratch.correction, filters);
  layout.add(scratch.multiplier, filters);
  layout.add(scratch.bias, filters);
  layout.add(scratch.sums, elements);
  layout.add(scratch.tile, elements);
  scratch.bytes = layout.bytes();
  return scratch;
}

const half* Conv2d::WideTile::compute(ConvArgs args, bool sparse) {
  // The dense part: without bias, residual and activation.
  const Conv2dTypes types{.src = DType::qai8, .src_row = conv_.types_.src_row};
  const OutputStage dense = fill_output_stage(types, {}, conv_.weights_, {}, state_,
                                              {.correction = scratch_.correction,
                                               .multiplier = scratch_.multiplier,
                                               .bias = scratch_.bias});
  const void* const residual = args.residual;
  args.residual = nullptr;
  args.sparse = nullptr;
  args.dst = scratch_.tile;
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
    const float level = output_level(stage, sparse ? scratch_.sums[i] : 0, unit,
                                     to_float(scratch_.tile[i]) + conv_.bias_[f], r);
    scratch_.tile[i] = to_half(level);
  }
  return scratch_.tile;
}

}  // namespace qpp
