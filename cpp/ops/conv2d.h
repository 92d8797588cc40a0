// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels/pack.h"
#include "kernels/select.h"
#include "ops/conv2d_spec.h"

namespace qpp {

/// How one scheme runs a convolution: element types, and the QP rows of the int8 ones.
struct Conv2dTypes {
  DType src = DType::f16;
  DType dst = DType::f16;
  bool sparse_src = false;  // an int8 source has outliers
  bool sparse_dst = false;  // those of an int8 destination are listed
  int src_row = -1;         // row of an int8 source
  int dst_row = -1;         // row of an int8 destination
  int range_row = -1;       // row whose range an fp16 destination measures, or -1
  std::optional<DType> residual = std::nullopt;  // of a second input, which is added
  int residual_row = -1;                         // row of an int8 residual
};

class SparsePart;

/// Direct convolution of any kernel size, stride, padding and dilation, NHWC, with bias, residual,
/// activation and quantization fused. A dense + sparse destination is made tile by tile, from
/// levels or fp16.
class Conv2d final : public Op {
 public:
  /// The elements that kernels read as one tap: a pixel, the pixels under a row of the
  /// convolution's kernel, or all pixels under it.
  enum class Gathering : std::uint8_t { pixels, rows, patches };

  Conv2d(const Conv2dSpec& spec, const Conv2dTypes& types, const KernelSelection& selection);
  ~Conv2d() override;

  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "conv2d"; }
  /// Of the residual: tiles do not overlap.
  [[nodiscard]] bool runs_in_place(std::size_t input) const override { return input == 1; }
  [[nodiscard]] std::string kernel() const override;
  [[nodiscard]] std::int64_t macs() const override {
    return output_.pixels() * output_.channels * channels_ * kernel_size_.height *
           kernel_size_.width;
  }
  [[nodiscard]] std::size_t weight_bytes() const override;

 private:
  struct Scratch;
  class Tiles;
  class WideTile;
  /// Copies of source rows without the padding of channels, between the padding of the image. A tap
  /// of more than a pixel is a run of columns.
  struct Strips {
    std::int64_t rows = 1;            // of the source, in each column: 1, or all under the kernel
    std::int64_t row_step = 1;        // source rows from one strip to the next
    std::int64_t per_output_row = 1;  // strips from one row of the output to the next
    std::int64_t per_image = 0;
    std::int64_t kept = 0;  // at once, for the rows of a tile
    std::int64_t column_bytes = 0;
    std::int64_t bytes = 0;
  };

  [[nodiscard]] Scratch lay_out(std::byte* base) const;
  [[nodiscard]] std::int64_t source_bytes(std::int64_t elements) const;
  [[nodiscard]] std::int64_t border_pixels() const;
  [[nodiscard]] std::int64_t copy_bytes() const;
  [[nodiscard]] std::int64_t levels_bytes() const;
  [[nodiscard]] SparsifyArgs bounds_of_levels(const OutputStage& stage, const QParams& row) const;
  void fill_border(const Scratch& scratch, const RunState& state) const;

  std::string name_;
  Conv2dTypes types_;
  Size2d kernel_size_;
  Size2d stride_;
  Padding padding_;
  Size2d dilation_;
  ActivationSpec activation_;
  std::int64_t channels_;
  PackedWeights weights_;
  AlignedVector<float> bias_;  // [filters, padded to nr]
  bool plain_ = false;         // from fp16 to fp16, with weights in units of 1
  const ConvKernel* kernel_;
  const ConvKernel* interior_ = nullptr;      // the 3x3 stride 1 kernel, or null
  std::unique_ptr<SparsePart> sparse_part_;   // of a dense + sparse source
  const SparsifyKernel* sparsify_ = nullptr;  // for a dense + sparse destination
  const ConvKernel* wide_kernel_ = nullptr;   // of WideTile, for tiles that may need it
  const SparsifyKernel* wide_sparsify_ = nullptr;
  Gathering gathering_;
  bool pointwise_;  // 1x1 without strides and padding; places are not kept track of
  Strips strips_;
  Shape input_;
  Shape output_;
  int threads_ = 1;
};

}  // namespace qpp
