// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/call_lock.h"
#include "network/arena.h"
#include "network/program.h"
#include "network/qp_table.h"

namespace qpp {

/// One step as explain() shows it.
struct StepInfo {
  std::string node;
  std::string op;
  std::string kernel;  // "" where there is nothing to choose
  std::string dtype;   // of the output; "" for steps that only write rows
  Shape shape;         // from here on of the prepared shapes
  std::int64_t macs = 0;
  std::size_t bytes = 0;  // of inputs, output and constants
  std::string note;       // why the step differs from the scheme's usual one, or ""
};

/// When a step ran for one sample, in nanoseconds of the steady clock.
struct StepTime {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// The output of a step, as the following steps read it.
struct StepOutput {
  std::int64_t sample;  // of the batch
  std::size_t step;
  const std::string& value;
  TensorView data;
  QParams qparams;  // of an int8 value
};
using ObserveStep = std::function<void(const StepOutput&)>;

/// The callbacks of a run.
struct RunHooks {
  std::vector<StepTime>* times = nullptr;  // gets one entry per step of every sample
  // NOLINTBEGIN(readability-redundant-member-init): else GCC warns where a caller sets only some
  ObserveStep observe = {};             // gets the output of every step
  CheckInterrupt check_interrupt = {};  // is called between steps
  // NOLINTEND(readability-redundant-member-init)
};

/// Throws ShapeError for a value beyond any memory, before the sizes of later values overflow.
void check_size(const std::string& value, const Shape& shape, std::int64_t max_elements);

/// Runs a program on one sample at a time, over one planned arena. Everything is laid out in
/// prepare(); run() does not allocate.
class Executor {
 public:
  /// On `cores` only, if any are given.
  Executor(Program program, int threads, const CoreSet& cores);

  /// Lays out memory for these input shapes, of batch 1; does nothing when they are the prepared
  /// ones. Throws ShapeError.
  void prepare(const std::vector<Shape>& inputs);
  [[nodiscard]] const Shape& output_shape(std::size_t index) const;

  /// Float CHW in and out, one pointer per input and output, of the sample number `sample`.
  /// `check_finite` makes NonFiniteError of an input that is not. A null output is not written. The
  /// times of the sample are written to their place in `hooks.times`, which must have room.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
           QpTable& table, bool check_finite, const RunHooks& hooks, std::int64_t sample);

  [[nodiscard]] std::size_t step_count() const { return program_.steps.size(); }
  [[nodiscard]] const std::vector<int>& copied_rows() const { return program_.copied_rows; }
  [[nodiscard]] std::vector<StepInfo> explain() const;
  [[nodiscard]] std::size_t weight_bytes() const;
  [[nodiscard]] std::size_t arena_bytes() const { return arena_.size(); }
  /// The most bytes alive at one step, scratch included: the arena cannot be smaller.
  [[nodiscard]] std::size_t peak_bytes() const { return peak_bytes_; }

 private:
  void infer_shapes(const std::vector<Shape>& inputs);
  /// Throws NonFiniteError for the first value of a run that holds NaN or infinity. The inputs,
  /// which are finite, made an output that does.
  [[noreturn]] void raise_non_finite(const std::vector<const float*>& inputs,
                                     const std::string& output, QpTable& table);
  /// Whether all inputs are within fp16.
  bool import_inputs(const std::vector<const float*>& inputs, bool check_finite);
  void lay_out_arena();
  /// Fills the operations' arguments, which point into the arena and do not change from run to run.
  void bind_arguments();
  [[nodiscard]] TensorView view(int buffer);
  /// Finds the step that can write an output to its caller at once, since nothing else reads it.
  void find_direct_writers();
  /// Runs a step, again with extended bounds while outliers of its output exceed the capacity.
  void run_step(std::size_t step, RunState& state, QpTable& table) const;
  [[nodiscard]] StepOutput output_of(std::int64_t sample, std::size_t step, const QpTable& table);
  [[nodiscard]] std::size_t buffer_bytes(int buffer) const;
  /// The input whose memory the output of a step takes, or -1.
  [[nodiscard]] int in_place_input(int step) const;

  Program program_;
  ThreadPool pool_;
  std::vector<Shape> prepared_;      // input shapes; empty: not prepared
  std::vector<Shape> shapes_;        // per buffer
  std::vector<int> last_uses_;       // per buffer: the last step that reads it, or writes it unread
  std::vector<RunArgs> args_;        // per step, ready to run
  std::vector<int> direct_writers_;  // per output: the step that can write it to its caller, or -1
  std::vector<TensorView> step_inputs_;
  std::vector<std::size_t> offsets_;  // per buffer, then of the scratch of every step
  std::size_t peak_bytes_ = 0;
  Arena arena_;
};

}  // namespace qpp
