// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/thread_pool.h"
#include "network/qp_table.h"
#include "ops/op.h"
#include "tools/measure.h"

namespace qpp::bench {

/// One operation with its tensors, outside a network.
class OpBench {
 public:
  /// Inputs of these shapes, of random elements; `rows` rows of the QP table.
  OpBench(const std::vector<Shape>& shapes, DType src, DType dst, int threads, std::size_t rows);

  enum class Order : std::uint8_t { together, in_turn };

  /// A run executes all operations, or one after the other in turn.
  void run(const std::vector<Op*>& ops, const Options& options, nlohmann::ordered_json& report,
           Order order = Order::together);

  /// The inputs become dense + sparse: this share of their elements gets a residual.
  void add_outliers(double density);
  void make_output_sparse() { sparse_dst_ = true; }
  void add_residual(const Shape& shape, DType dtype);

  /// The 1 - `share` quantile of the output of an operation, in fp16.
  float largest_but(double share, Op& op);

  [[nodiscard]] QpTable& table() { return table_; }

 private:
  void add_input(const Shape& shape, DType src, Random& random);

  std::vector<Shape> shapes_;
  DType dst_;
  bool sparse_dst_ = false;
  ThreadPool pool_;
  QpTable table_;
  std::vector<AlignedVector<std::byte>> data_;
  std::vector<AlignedVector<std::byte>> outliers_;
  std::vector<TensorView> inputs_;
  AlignedVector<std::byte> output_;
};

}  // namespace qpp::bench
