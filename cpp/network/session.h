// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/call_lock.h"
#include "network/executor.h"
#include "network/model.h"
#include "network/qparams_source.h"
#include "network/session_options.h"
#include "network/session_stats.h"

namespace qpp {

/// Bytes.
struct SessionMemory {
  std::size_t weights = 0;  // packed as kernels read them
  std::size_t arena = 0;    // all values and scratch, of the prepared shapes
  std::size_t peak = 0;     // of these, the most that are alive at one step
};

/// Of every sample of the last run the same number of values, sample by sample.
template <typename T>
struct PerSample {
  std::size_t samples = 0;
  std::vector<T> values;
};

/// A model ready to run in one scheme. A batch runs sample by sample through one plan: rows of the
/// QP table, features and outliers are those of a sample, whose result does not depend on the
/// others, and memory does not grow with the batch. Safe to use from several threads: calls are
/// serialized by a lock. For parallel work open one session per thread.
class Session {
 public:
  struct Input {
    const float* data;  // NCHW
    Shape shape;
  };
  /// Returns where output `index` of this shape, float NCHW, is to be written; null: nowhere.
  using OutputAllocator = std::function<float*(std::size_t index, const Shape& shape)>;

  /// Throws UnsupportedError for options or a scheme that the model does not allow.
  Session(const Model& model, const SessionOptions& options);
  /// With a scheme in place of the one that the options name.
  Session(const Model& model, const SessionOptions& options, const Scheme& scheme);

  /// Lays out memory for these input shapes, of one batch size, as the first run with them does
  /// otherwise; returns those of the outputs. Throws ShapeError.
  std::vector<Shape> prepare(const std::vector<Shape>& shapes);

  /// Allocates only when the input shapes differ from the run before. `hooks.times` is sample by
  /// sample in the order of explain(); `hooks.check_interrupt` is also called while the
  /// run waits for another thread's call. An exception of a hook ends the run; the session stays
  /// usable. Throws
  /// ShapeError, and NonFiniteError with the number of the sample in its batch; the outputs of the
  /// samples before it are written by then.
  void run(const std::vector<Input>& inputs, const OutputAllocator& place,
           const RunHooks& hooks = {});

  [[nodiscard]] const std::vector<Model::Input>& inputs() const { return inputs_; }
  [[nodiscard]] const std::vector<std::string>& outputs() const { return outputs_; }
  [[nodiscard]] SessionStats stats() const;
  /// Bounds of every quantized value, in the order of the QP table; of the scheme
  /// "calibration" those of every alpha, one table after the other.
  [[nodiscard]] PerSample<Range> bounds() const;
  /// The features as predictors read them, [predictors, feature_columns()]: NaN where a predictor
  /// has fewer than others.
  [[nodiscard]] PerSample<float> features() const;
  [[nodiscard]] std::size_t feature_columns() const { return feature_columns_; }
  /// Steps in order. Shapes, MACs and bytes are those of the whole batch, and known from the first
  /// run or prepare() on.
  [[nodiscard]] std::vector<StepInfo> explain() const;
  /// The arena and its peak are those of one sample, for any batch.
  [[nodiscard]] SessionMemory memory() const;

 private:
  void check_input_count(std::size_t count) const;
  /// Makes everything ready for shapes_.
  void lay_out();
  [[nodiscard]] Shape output_shape(std::size_t index) const;
  /// Runs one sample of the batch, from sources_ to targets_.
  void run_sample(std::int64_t sample, const RunHooks& hooks);

  // Of the model only names stay: its float weights are packed by now.
  std::vector<Model::Input> inputs_;
  std::vector<std::string> outputs_;
  std::int64_t value_elements_;  // that a value may have
  std::size_t feature_columns_ = 0;
  std::unique_ptr<QParamsSource> source_;  // of the QP table; null: nothing is quantized
  bool dense_sparse_;
  Executor executor_;
  QpTable table_;
  std::int64_t runs_ = 0;
  std::int64_t samples_ = 0;
  std::int64_t batch_ = 0;
  std::vector<Shape> shapes_;          // of the inputs
  std::vector<Shape> laid_out_;        // shapes_ that all is ready for; empty: none
  std::vector<Shape> sample_shapes_;   // the same of one sample
  std::vector<const float*> sources_;  // of the batch; below of one sample
  std::vector<float*> targets_;
  std::vector<const float*> sample_sources_;
  std::vector<float*> sample_targets_;
  PerSample<Range> bounds_;
  PerSample<float> features_;
  std::atomic<bool> laying_out_ = false;  // a fork may find it set
  mutable CallLock lock_;
};

}  // namespace qpp
