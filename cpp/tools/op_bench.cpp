// SPDX-License-Identifier: Apache-2.0
#include "tools/op_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/sparsify.h"
#include "tensor/outliers.h"

namespace qpp::bench {
namespace {

/// Without the padding of channels.
std::size_t bytes_of(const Shape& shape, DType dtype) {
  return static_cast<std::size_t>(shape.pixels() * shape.channels) * size_of(dtype);
}

}  // namespace

OpBench::OpBench(const std::vector<Shape>& shapes, DType src, DType dst, int threads,
                 std::size_t rows)
    : shapes_(shapes), dst_(dst), pool_(threads), table_(rows, 5) {
  Random random;
  for (QParams& row : table_.qparams) row = choose_qparams(-1.0F, 1.0F, 8);
  for (const Shape& shape : shapes_) add_input(shape, src, random);
}

void OpBench::run(const std::vector<Op*>& ops, const Options& options,
                  nlohmann::ordered_json& report, Order order) {
  struct Ready {
    Op* op;
    AlignedVector<std::byte> scratch;
  };
  std::vector<Ready> ready;
  Shape output;
  for (Op* op : ops) {
    output = op->prepare(shapes_, pool_.threads());
    ready.push_back({op, AlignedVector<std::byte>(op->scratch_bytes())});
    if (!op->kernel().empty()) report["kernel"] = op->kernel();
  }
  output_.resize(static_cast<std::size_t>(output.elements()) * size_of(dst_));
  TensorView view{.data = output_.data(), .dtype = dst_, .shape = output};
  if (sparse_dst_) {
    outliers_.emplace_back(outlier_bytes(output));
    view.outliers = outliers_of(output, outliers_.back().data());
  }
  float* direct_output = dst_ == DType::f32 ? view.as<float>() : nullptr;
  std::size_t bytes = report.value("bytes", std::size_t{0}) + bytes_of(output, dst_);
  for (const TensorView& input : inputs_) bytes += bytes_of(input.shape, input.dtype);
  report["bytes"] = bytes;
  RunState state = table_.state(pool_);
  const auto execute = [&](Ready& step) {
    step.op->run({.inputs = inputs_,
                  .output = view,
                  .scratch = step.scratch.data(),
                  .direct_output = direct_output},
                 state);
  };
  std::size_t turn = 0;
  const auto next = [&] { execute(ready[turn++ % ready.size()]); };
  const auto all = [&] {
    for (Ready& step : ready) execute(step);
  };
  // Their weights, just packed, are written back to memory now, which no measured run is to wait
  // for.
  if (order == Order::in_turn && ready.size() > 1) all();
  measure(options, order == Order::in_turn ? std::function<void()>(next) : all, report);
  if (!output_.empty()) report["crc32"] = checksum(output_);
  if (!sparse_dst_) return;
  double outliers = 0;
  for (std::int64_t row = 0; row < output.batch * output.height; ++row) {
    outliers += view.outliers.row(row).begins[output.width];
  }
  report["output_density"] = outliers / static_cast<double>(output.pixels() * output.channels);
}

void OpBench::add_outliers(double density) {
  Random random;
  for (TensorView& input : inputs_) {
    const Shape& shape = input.shape;
    outliers_.emplace_back(outlier_bytes(shape));
    input.outliers = outliers_of(shape, outliers_.back().data());
    for (std::int64_t p = 0; p < shape.pixels(); ++p) {
      OutlierAppender appender(input.outliers.row(p / shape.width), p % shape.width);
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const float chance = (random.next() + 1) / 2;
        if (chance >= static_cast<float>(density)) continue;
        input.as<std::int8_t>()[p * shape.stride() + c] = 127;
        appender.append(p % shape.width * shape.stride() + c,
                        1 + static_cast<std::int32_t>(63 * (random.next() + 1)));
      }
      appender.end_pixel(p % shape.width);
    }
  }
}

void OpBench::add_residual(const Shape& shape, DType dtype) {
  Random random;
  shapes_.push_back(shape);
  add_input(shape, dtype, random);
}

float OpBench::largest_but(double share, Op& op) {
  const Shape shape = op.prepare(shapes_, pool_.threads());
  AlignedVector<std::byte> scratch(op.scratch_bytes());
  std::vector<half> halves(static_cast<std::size_t>(shape.elements()));
  RunState state = table_.state(pool_);
  op.run({.inputs = inputs_,
          .output = {.data = halves.data(), .dtype = DType::f16, .shape = shape},
          .scratch = scratch.data()},
         state);
  std::vector<float> values(halves.size());
  std::transform(halves.begin(), halves.end(), values.begin(), to_float);
  const auto rank = static_cast<std::ptrdiff_t>((1 - share) * static_cast<double>(values.size()));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

void OpBench::add_input(const Shape& shape, DType src, Random& random) {
  auto& input = data_.emplace_back();
  input.resize(static_cast<std::size_t>(shape.elements()) * size_of(src));
  for (std::int64_t p = 0; p < shape.pixels(); ++p) {
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const std::int64_t i = p * shape.stride() + c;
      const float value = random.next();
      if (src == DType::f16) {
        reinterpret_cast<half*>(input.data())[i] = to_half(value);
      } else {
        input[static_cast<std::size_t>(i)] =
            static_cast<std::byte>(static_cast<std::int8_t>(value * 127.0F));
      }
    }
  }
  inputs_.push_back({.data = input.data(), .dtype = src, .shape = shape});
}

}  // namespace qpp::bench
