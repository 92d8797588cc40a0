// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "kernels/output_stage.h"
#include "tensor/qparams.h"
#include "tensor/view.h"

namespace qpp {

/// The data of one run of a network in addition to its tensors. Operations read and write rows by
/// the index they were made with.
struct RunState {
  ThreadPool& pool;
  std::span<QParams> qparams;                   // the QP table: one row per quantized value
  std::span<Range> ranges;                      // per row: measured by the producer's epilogue
  std::span<float> features;                    // of all predictors
  std::span<std::int64_t> clamped_predictions;  // per row
  std::span<std::int64_t> widened_bounds;       // per row: bounds that were extended
};

struct RunArgs {
  std::span<const TensorView> inputs;
  TensorView output;               // data is null for operations that only write rows
  std::byte* scratch = nullptr;    // scratch_bytes(), 64-byte aligned
  float* direct_output = nullptr;  // float NCHW; if not null, where to write the output instead
};

/// One operation of a program. Made and prepared once, run many times; run() neither allocates nor
/// throws on valid data.
class Op {
 public:
  Op() = default;
  virtual ~Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  /// Checks the input shapes and returns the output's; throws ShapeError naming the node. Called
  /// again when shapes change.
  virtual Shape prepare(std::span<const Shape> inputs, int threads) = 0;
  /// Working memory of one run() with the prepared shapes.
  [[nodiscard]] virtual std::size_t scratch_bytes() const { return 0; }
  virtual void run(const RunArgs& args, RunState& state) const = 0;

  /// The name of the operation in explain().
  [[nodiscard]] virtual std::string kind() const = 0;
  /// Name of the chosen kernel, "" if the operation has none.
  [[nodiscard]] virtual std::string kernel() const { return ""; }
  /// True where of this input every vector of the output needs that at its place only, which is
  /// read before it is written: the output may then have the memory of the input, of the same size.
  [[nodiscard]] virtual bool runs_in_place(std::size_t /*input*/) const { return false; }
  /// Whether run() can write to RunArgs::direct_output: an output of the network that no other
  /// operation reads then goes to the caller's memory without a copy.
  [[nodiscard]] virtual bool writes_output_directly() const { return false; }
  /// Multiply-accumulates of one run() with the prepared shapes, as sums of products need them.
  [[nodiscard]] virtual std::int64_t macs() const { return 0; }
  /// Bytes of constants held, packed as the kernel reads them.
  [[nodiscard]] virtual std::size_t weight_bytes() const { return 0; }
};

}  // namespace qpp
