// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/align.h"
#include "network/program.h"
#include "network/qp_table.h"

namespace qpp {

/// One step as explain() shows it.
struct StepInfo {
  std::string node;
  std::string op;
  std::string kernel;  // "" where there is nothing to choose
  std::string dtype;   // of the output; "" for steps that only write rows
  Shape shape;
};

/// Runs a program over one planned arena. Everything is laid out in prepare(); run() does not
/// allocate.
class Executor {
 public:
  Executor(Program program, int threads);

  /// Lays out memory for these input shapes; does nothing when they are the prepared ones. Throws
  /// ShapeError.
  void prepare(const std::vector<Shape>& inputs);
  [[nodiscard]] const Shape& output_shape(std::size_t index) const;

  /// Float NCHW in and out, one pointer per input and output. `check_finite` makes NonFiniteError
  /// of an input that is not.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
           QpTable& table, bool check_finite);

  [[nodiscard]] std::vector<StepInfo> explain() const;
  [[nodiscard]] std::size_t weight_bytes() const;
  [[nodiscard]] std::size_t arena_bytes() const { return arena_.size(); }

 private:
  [[nodiscard]] TensorView view(int buffer);

  Program program_;
  ThreadPool pool_;
  std::vector<Shape> prepared_;  // input shapes; empty: not prepared
  std::vector<Shape> shapes_;    // per buffer
  std::vector<RunArgs> args_;    // per step, ready to run
  std::vector<TensorView> step_inputs_;
  std::vector<std::size_t> offsets_;  // per buffer
  AlignedVector<std::byte> arena_;
};

}  // namespace qpp
