// SPDX-License-Identifier: Apache-2.0
//
// Shared by all algorithms of a convolution: the output shape and the output stage.
#pragma once

#include <span>
#include <string>

#include "kernels/pack.h"
#include "ops/conv2d.h"

namespace qpp {

/// The part of Conv2dSpec that decides about shapes.
struct Conv2dGeometry {
  std::int64_t filters = 0;
  std::int64_t channels = 0;
  Size2d kernel;
  Size2d stride;
  Padding padding;
  Size2d dilation;
};

/// The output's shape, of an image and maybe a residual. Throws ShapeError, naming the node, for
/// other channels than the weights have, for images smaller than the effective kernel size, and for
/// a residual of another shape than the output's.
Shape conv_output_shape(const std::string& node, std::span<const Shape> inputs,
                        const Conv2dGeometry& geometry);

/// From weights, activation and QP rows to the arguments of kernels. Each array, and
/// `bias`, holds as many elements as `weights.scales`; an empty one is all zeros. A stage
/// with a residual has no tanh.
OutputStage fill_output_stage(const Conv2dTypes& types, const ActivationSpec& activation,
                              const PackedWeights& weights, std::span<const float> bias,
                              const RunState& state, const OutputArrays& arrays);

/// Stores the range of the output, from the ranges of all threads, if it is requested.
void store_range(const Conv2dTypes& types, std::span<const Range> threads, RunState& state);

}  // namespace qpp
