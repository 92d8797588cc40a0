// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ops/conv2d.h"

namespace qpp {

/// 3x3 convolution of stride 1 and dilation 1 by Winograd's algorithm (kernels/winograd.h), NHWC,
/// with bias, residual, activation and quantization fused. Weights stay real numbers, so int8
/// sources and destinations are the only quantization.
///
/// The image is cut into tiles of 4x4 outputs, and the tiles, in the order of rows and images, into
/// blocks: V of a block stays in the cache while all filters pass.
///
/// Of a dense + sparse source both parts are added, in fp16, before the tiles are transformed; of a
/// dense + sparse destination both are made from a block's outputs in fp16. Strips with outliers
/// that the transforms could not hold, and blocks with levels beyond fp16, are scaled by powers of
/// two.
class WinogradConv2d final : public Op {
 public:
  /// True for convolutions that this engine can compute. Sources in fp16 need weights up to 64:
  /// the inverse scales of larger ones may not fit fp16.
  static bool supports(const Conv2dSpec& spec, DType src);

  /// `spec` must be supported.
  WinogradConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                 const KernelSelection& selection);

  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "conv2d"; }
  /// Of the residual: tiles of outputs do not overlap.
  [[nodiscard]] bool runs_in_place(std::size_t input) const override { return input == 1; }
  [[nodiscard]] std::string kernel() const override { return kernels_.multiply->info.name; }
  [[nodiscard]] std::int64_t macs() const override {
    return output_.pixels() * output_.channels * channels_ * 9;
  }
  [[nodiscard]] std::size_t weight_bytes() const override { return weights_.data.size(); }

 private:
  struct Scratch;
  class Worker;
  /// They agree on the types of V and M.
  struct Kernels {
    Kernels(const Conv2dTypes& types, const KernelSelection& selection);
    const WinogradMultiplyKernel* multiply;
    const WinogradInputKernel* input;
    const WinogradOutputKernel* output;
  };

  [[nodiscard]] Scratch lay_out(std::byte* base) const;
  [[nodiscard]] int choose_level_exponent(const OutputStage& stage) const;
  /// Elements of V of one block.
  [[nodiscard]] std::int64_t v_elements() const;
  /// Elements of the merged sources of a strip, of the outputs of a block; 0 where all is dense.
  [[nodiscard]] std::int64_t patch_elements() const;
  [[nodiscard]] std::int64_t sums_elements() const;

  std::string name_;
  Conv2dTypes types_;
  Padding padding_;
  ActivationSpec activation_;
  std::int64_t channels_;
  PackedWeights weights_;
  AlignedVector<float> bias_;  // [filters, padded to 8]
  Kernels kernels_;
  const DensifyKernel* densify_;    // of a dense + sparse source, or null
  const SparsifyKernel* sparsify_;  // of a dense + sparse destination, or null
  float outlier_limit_ = 0;         // of sources with outliers, in the units of densified ones
  Shape input_;
  Shape output_;
  std::int64_t tile_rows_ = 0;     // of an image
  std::int64_t tile_columns_ = 0;  // of an image
  std::int64_t block_tiles_ = 0;   // of a block, a multiple of 8
  std::int64_t blocks_ = 0;
  std::int64_t filter_parts_ = 1;  // in which the filters of a block are shared out to threads
  int threads_ = 1;
};

}  // namespace qpp
