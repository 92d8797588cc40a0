// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/select.h"
#include "ops/op.h"

namespace qpp {

/// Splits successive pixels, from `first` on, of a dense + sparse activation in the order of its
/// rows and images; rows are begun by whom has their first pixel. `args` has the arguments of the
/// kernel apart from places; its src holds `count` pixels. Elements out of reach are counted as
/// cut; true where there are none.
bool sparsify_pixels(const SparsifyKernel& kernel, SparsifyArgs args, const TensorView& dst,
                     std::int64_t first, std::int64_t count);

/// sparsify_pixels(), to be undone in case of false: the outliers that an earlier call counted as
/// cut in the first row.
std::uint32_t count_cut_before(const TensorView& dst, std::int64_t first);
/// Undoes a call; the next one for these pixels replaces their entries.
void restore_cut(const TensorView& dst, std::int64_t first, std::uint32_t count);

/// The bounds of levels of an fp16 source: those of the row, extended by kMaxResidual. Those beyond
/// are out of reach.
SparsifyArgs sparsify_bounds(const QParams& row);

/// Widens the row of the QP table of a value that was stored with outliers cut, so that most of
/// these get into the dense part. False: none were cut, and the row is as it was. Changes the
/// lists, which are to be stored again.
bool widen_to_fit(const TensorView& value, QParams& row);

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
