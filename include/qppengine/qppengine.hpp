// SPDX-License-Identifier: Apache-2.0
//
// qppengine for C++17 and later, on top of the C interface.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "qppengine/qppengine.h"

namespace qppengine {

/// The exception of all functions here. `status()` returns its kind.
class Error : public std::runtime_error {
 public:
  Error(qpp_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  [[nodiscard]] qpp_status status() const { return status_; }

 private:
  qpp_status status_;
};

/// Batch, channels, height, width.
using Shape = std::array<std::int64_t, 4>;

/// Throws Error for a size below 0 and for more elements than memory can hold.
inline std::size_t element_count(const Shape& shape) {
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 48;
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || size > kMaxElements || (size > 0 && count > kMaxElements / size))
      throw Error(QPP_ERROR_SHAPE, "expected a shape of sizes from 0 that fits into memory");
    count *= size;
  }
  return static_cast<std::size_t>(count);
}

/// A float array, NCHW.
struct Tensor {
  Shape shape{};
  std::vector<float> data;
};

struct Options {
  std::string scheme = "qpp";       // "fp16", "static", "dynamic" or "qpp"
  std::string algorithm = "auto";   // of convolutions: "auto", "direct" or "winograd"
  std::string cores = "all";        // that the threads run on: "all" or "big"
  std::string static_bounds = {};   // of scheme "static": "mean", "range", "fitted" or ""
  std::string residual_dtype = {};  // "int8" or "fp16", which sums read; "": fp16 if dynamic
  int activation_bits = 8;          // 2 to 8
  int threads = 1;
  double density = 0;  // of dense + sparse execution: up to 0.1; 0: int8 alone
};

inline std::string version() { return qpp_version(); }

/// A model ready to run in one scheme. May be used from several threads: calls wait for each other.
/// For parallel work open one session per thread.
///
/// A session that was moved from may be assigned to and destroyed; all else throws Error.
class Session {
 public:
  /// Loads a .qpp file. Throws Error.
  explicit Session(const std::string& path, const Options& options = {}) {
    const qpp_options converted = convert(options);
    adopt(
        [&](qpp_session** session) { return qpp_session_open(path.c_str(), &converted, session); });
  }
  /// The same from memory, which is not needed any more afterwards.
  Session(const void* data, std::size_t size, const Options& options = {}) {
    const qpp_options converted = convert(options);
    adopt([&](qpp_session** session) {
      return qpp_session_open_memory(data, size, &converted, session);
    });
  }

  [[nodiscard]] std::vector<std::string> inputs() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < qpp_session_input_count(handle()); ++i)
      names.emplace_back(qpp_session_input_name(handle(), i));
    return names;
  }
  [[nodiscard]] std::vector<std::string> outputs() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < qpp_session_output_count(handle()); ++i)
      names.emplace_back(qpp_session_output_name(handle(), i));
    return names;
  }
  /// The expected shape of an input; -1 is any size. Throws Error for an index out of range.
  [[nodiscard]] Shape input_shape(std::size_t index) const {
    qpp_shape shape{};
    check(qpp_session_input_shape(handle(), index, &shape));
    return to_shape(shape);
  }

  /// Lays out memory for these shapes of the inputs, all of one batch size, so that runs with them
  /// do not allocate; returns the shapes of the outputs. Throws Error.
  std::vector<Shape> prepare(const std::vector<Shape>& inputs) {
    const std::vector<qpp_shape> given = from_shapes(inputs);
    std::vector<qpp_shape> prepared(qpp_session_output_count(handle()));
    check(qpp_session_prepare(handle(), given.data(), prepared.data()));
    std::vector<Shape> outputs;
    for (const qpp_shape& shape : prepared) outputs.push_back(to_shape(shape));
    return outputs;
  }

  /// Runs on one tensor per input, of any shapes that the model takes. A batch runs sample by
  /// sample, each as it would alone. Throws Error.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) {
    std::vector<Shape> shapes;
    std::vector<const float*> sources;
    for (const Tensor& input : inputs) {
      if (input.data.size() != element_count(input.shape))
        throw Error(QPP_ERROR_SHAPE, "run: a tensor's data does not have the size of its shape");
      shapes.push_back(input.shape);
      sources.push_back(input.data.data());
    }
    std::vector<Tensor> outputs;
    std::vector<float*> targets;
    for (const Shape& shape : prepare(shapes))
      outputs.push_back({shape, std::vector<float>(element_count(shape))});
    for (Tensor& output : outputs) targets.push_back(output.data.data());
    check(qpp_session_run(handle(), sources.data(), from_shapes(shapes).data(), targets.data()));
    return outputs;
  }

  /// The C handle, for functions that this class lacks, such as runs without an allocation; still
  /// owned by this object.
  /// Null if moved from.
  [[nodiscard]] qpp_session* get() const { return session_.get(); }

 private:
  struct Close {
    void operator()(qpp_session* session) const { qpp_session_close(session); }
  };

  static void check(qpp_status status) {
    if (status != QPP_OK) throw Error(status, qpp_error_message());
  }
  static Shape to_shape(const qpp_shape& shape) {
    return {shape.sizes[0], shape.sizes[1], shape.sizes[2], shape.sizes[3]};
  }
  [[nodiscard]] qpp_session* handle() const {
    if (!session_) throw Error(QPP_ERROR, "expected a session, got one that was moved from");
    return session_.get();
  }
  /// One shape for every input.
  [[nodiscard]] std::vector<qpp_shape> from_shapes(const std::vector<Shape>& shapes) const {
    const std::size_t count = qpp_session_input_count(handle());
    if (shapes.size() != count)
      throw Error(QPP_ERROR_SHAPE, "expected " + std::to_string(count) + " inputs, got " +
                                       std::to_string(shapes.size()));
    std::vector<qpp_shape> converted;
    for (const Shape& shape : shapes)
      converted.push_back({{shape[0], shape[1], shape[2], shape[3]}});
    return converted;
  }
  /// Points into `options`.
  static qpp_options convert(const Options& options) {
    qpp_options converted{};
    converted.scheme = options.scheme.c_str();
    converted.algorithm = options.algorithm.c_str();
    converted.cores = options.cores.c_str();
    converted.static_bounds =
        options.static_bounds.empty() ? nullptr : options.static_bounds.c_str();
    converted.residual_dtype =
        options.residual_dtype.empty() ? nullptr : options.residual_dtype.c_str();
    converted.activation_bits = options.activation_bits;
    converted.threads = options.threads;
    converted.density = options.density;
    return converted;
  }
  template <typename Open>
  void adopt(const Open& open) {
    qpp_session* session = nullptr;
    check(open(&session));
    session_.reset(session);
  }

  std::unique_ptr<qpp_session, Close> session_;
};

}  // namespace qppengine
