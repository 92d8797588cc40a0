// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/activation.h"
#include "ops/geometry.h"
#include "ops/operation.h"

namespace qpp {

/// Weights that are rounded to int8 already, for kernels that read int8 weights.
struct Int8Weights {
  std::vector<float> levels;  // OIHW, -127 to 127
  std::vector<float> scales;  // [filters]
  std::vector<float> bias;    // [filters]
};

/// The operation conv2d; with a second input, that is added before the activation.
struct Conv2dSpec {
  static constexpr InputCount kInputs{.min = 1, .max = 2};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  std::int64_t filters = 0;
  std::int64_t channels = 0;  // of one group
  std::int64_t groups = 1;    // of channels; filters are divided among them
  Size2d kernel;
  Size2d stride;
  Padding padding;
  Size2d dilation;
  std::vector<float> weights;        // OIHW
  std::vector<float> bias;           // [filters]
  std::vector<float> weight_scales;  // [filters] of multiples of int8 scales; else empty
  std::optional<Int8Weights> int8;
  ActivationSpec activation;
};

/// The same convolution with the weights and the bias of `int8`, if there are any.
Conv2dSpec with_int8_weights(const Conv2dSpec& spec);

/// True for a 3x3 kernel with stride and dilation 1.
bool is_3x3_stride_1(const Conv2dSpec& spec);

/// Whether the sums of int8 products fit the int32 accumulators for any sources: quantized
/// weights of no filter have magnitudes that add up to more than kMaxMagnitude (kernels/pack.h).
bool int8_sums_fit(const Conv2dSpec& spec);

}  // namespace qpp
