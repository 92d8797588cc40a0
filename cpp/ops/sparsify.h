// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// Splits `count` pixels from pixel `first` of a dense + sparse activation, in the order of rows
/// and images. The call with the first pixel of a row begins its list. `args` has the arguments of
/// the kernel except for positions; its src holds `count` pixels. Saturated elements are counted as
/// dropped. Returns true if there are none.
bool sparsify_pixels(const SparsifyKernel& kernel, SparsifyArgs args, const TensorView& dst,
                     std::int64_t first, std::int64_t count);

/// The outliers of the row of pixel `first` that earlier calls counted as dropped. Call it before a
/// sparsify_pixels() that restore_dropped() may undo.
std::uint32_t count_dropped_before(const TensorView& dst, std::int64_t first);
/// Undoes the count of a call; the next call for these pixels replaces their entries.
void restore_dropped(const TensorView& dst, std::int64_t first, std::uint32_t count);

/// The bounds of levels of an fp16 source: those of the row, extended by kMaxResidual. Levels
/// saturate there.
SparsifyArgs sparsify_bounds(const QParams& row);

/// Extends the range of a value whose outliers exceeded the capacity, so that most of them fit the
/// dense part. Returns false, and leaves `row` unchanged, if no outlier was dropped. Reorders the
/// lists: store the value again.
bool extend_to_fit(const TensorView& value, QParams& row);

/// fp16 to dense + sparse with the value's row of the QP table.
class Sparsify final : public Op {
 public:
  Sparsify(int row, const KernelSelection& selection)
      : row_(row), kernel_(&selection.sparsify(DType::qai8, DType::f16)) {}
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "sparsify"; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }

 private:
  int row_;
  const SparsifyKernel* kernel_;
};

}  // namespace qpp
