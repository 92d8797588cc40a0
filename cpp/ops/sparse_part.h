// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "kernels/pack.h"
#include "kernels/select.h"
#include "ops/conv2d.h"
#include "tensor/outliers.h"

namespace qpp {

/// The sparse part of a direct convolution whose source is dense + sparse: the sums of residual *
/// weight over the outliers under the kernel, in fp16. The weights are those of the int8 kernels,
/// in another order; the dense kernels add the sums to their accumulators (kernels/conv.h).
class SparsePart {
 public:
  /// `scales` are those of the int8 weights.
  SparsePart(const Conv2dSpec& spec, std::span<const float> scales,
             const KernelSelection& selection);

  void prepare(const Shape& input, const Shape& output, std::int64_t tile);
  /// Working memory of one thread.
  [[nodiscard]] std::size_t scratch_bytes() const;
  /// An output pixel.
  struct Place {
    std::int64_t x = 0;
    std::int64_t y = 0;
    std::int64_t n = 0;
  };
  /// Computes them for one thread.
  class Sums {
   public:
    /// `scratch` holds scratch_bytes().
    Sums(const SparsePart& part, const Outliers& source, std::byte* scratch);
    /// Those of `count` successive output pixels, at most a tile: [pixel][filter], until the next
    /// call. Null: some of them do not fit.
    const half* of(const Place& place, std::int64_t count);
    /// The same in float, to `sums`.
    void to_floats(const Place& place, std::int64_t count, float* sums);

   private:
    /// Sets args_ for the successive parts of `count` pixels that are in one row each, and calls
    /// `visit` with the pixels before; stops where it returns false.
    template <typename Visit>
    bool visit_rows(Place place, std::int64_t count, const Visit& visit);
    /// The rows of sources under the outputs of a row.
    void find_rows(const Place& place);

    const SparsePart& part_;
    Outliers source_;
    SpmmArgs args_;
    SpmmRow* rows_;
    std::int64_t y_ = -1;  // of the rows found
    std::int64_t n_ = -1;
  };
  [[nodiscard]] std::size_t weight_bytes() const { return weights_.size() * sizeof(half); }

 private:
  struct Scratch;
  [[nodiscard]] Scratch lay_out(std::byte* base) const;

  Size2d kernel_size_;
  Size2d stride_;
  Padding padding_;
  Size2d dilation_;
  std::int64_t filters_;  // padded to 8
  AlignedVector<half>
      weights_;  // [ky][kx][c, padded to 8][filters_], for sums in units of kSparseUnit
  const SpmmKernel* kernel_;
  Shape input_;
  Shape output_;
  std::int64_t tile_ = 0;
};

}  // namespace qpp
