// SPDX-License-Identifier: Apache-2.0
//
// Grouped and depthwise convolutions against the dense convolution whose other weights are zero.

#include <doctest/doctest.h>

#include <cmath>

#include "network/qp_table.h"
#include "ops/conv_algorithm.h"
#include "support.h"

namespace qpp {
namespace {

struct Case {
  Shape input;
  std::int64_t filters;
  std::int64_t groups;
  Size2d kernel;
  Size2d stride;
  Padding padding;
  const char* kernel_begins;
};

const std::vector<Case> kCases = {
    {{1, 7, 9, 20}, 20, 20, {3, 3}, {1, 1}, {1, 1}, "depthwise_"},
    {{2, 8, 11, 8}, 8, 8, {3, 3}, {2, 2}, {1, 1}, "depthwise_"},
    {{3, 5, 4, 24}, 24, 24, {3, 3}, {1, 1}, {0, 0}, "depthwise_"},
    {{1, 6, 3, 40}, 40, 40, {3, 3}, {2, 2}, {2, 2}, "depthwise_"},
    {{1, 6, 7, 24}, 24, 24, {3, 3}, {1, 1}, {1, 0, -1, 2}, "depthwise_"},
    {{2, 5, 6, 12}, 12, 12, {1, 1}, {1, 1}, {0, 0}, "depthwise_"},
    {{1, 5, 6, 8}, 8, 8, {2, 3}, {2, 2}, {0, 1, 1, 0}, "depthwise_"},
    {{2, 6, 7, 12}, 8, 4, {3, 3}, {1, 1}, {1, 1}, "conv"},
    {{1, 9, 8, 6}, 6, 6, {5, 5}, {2, 2}, {2, 2}, "depthwise_"},
    {{1, 15, 13, 8}, 8, 8, {7, 7}, {1, 1}, {3, 3}, "depthwise_"},
    {{1, 9, 9, 16}, 16, 16, {3, 3}, {2, 1}, {1, 1}, "depthwise_"},
    {{1, 9, 9, 6}, 6, 6, {9, 9}, {1, 1}, {4, 4}, "conv"},
    {{1, 5, 5, 6}, 12, 6, {3, 3}, {1, 1}, {1, 1}, "conv"},
};

std::vector<std::byte> run(Op& op, const TensorView& input, DType dst, QpTable& table,
                           int threads) {
  ThreadPool pool(threads);
  const Shape output = op.prepare(std::span(&input.shape, 1), threads);
  AlignedVector<std::byte> scratch(op.scratch_bytes());
  std::vector<std::byte> result(static_cast<std::size_t>(output.elements()) * size_of(dst));
  RunState state = table.state(pool);
  op.run({.inputs = std::span(&input, 1),
          .output = {.data = result.data(), .dtype = dst, .shape = output},
          .scratch = scratch.data()},
         state);
  return result;
}

}  // namespace

TEST_CASE("groups see their own channels only") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Case& test : kCases) {
    CAPTURE(to_string(test.input));
    CAPTURE(test.groups);
    test::Random random(4);
    Conv2dSpec spec;
    spec.name = "conv";
    spec.filters = test.filters;
    spec.channels = test.input.channels / test.groups;
    spec.groups = test.groups;
    spec.kernel = test.kernel;
    spec.stride = test.stride;
    spec.padding = test.padding;
    const std::int64_t taps = test.kernel.height * test.kernel.width;
    spec.weights = random.list(test.filters * spec.channels * taps, 0.5F);
    spec.bias = random.list(test.filters);
    spec.activation.lo = -0.75F;
    Conv2dSpec dense = spec;
    dense.groups = 1;
    dense.channels = test.input.channels;
    dense.weights.assign(static_cast<std::size_t>(test.filters * dense.channels * taps), 0.0F);
    for (std::int64_t f = 0; f < test.filters; ++f) {
      const std::int64_t group = f / (test.filters / test.groups);
      const auto from = static_cast<std::size_t>(f * spec.channels * taps);
      const auto to = static_cast<std::size_t>((f * dense.channels + group * spec.channels) * taps);
      std::copy_n(&spec.weights[from], spec.channels * taps, &dense.weights[to]);
    }
    QpTable table(2, 0);
    table.qparams[0] = choose_qparams(-0.7F, 1.3F, 8);
    table.qparams[1] = choose_qparams(-1.5F, 2.0F, 8);
    std::vector<std::int8_t> levels(static_cast<std::size_t>(test.input.elements()));
    for (auto& value : levels) value = static_cast<std::int8_t>(random.next() * 127.0F);
    std::vector<half> halves(levels.size());
    for (half& value : halves) value = to_half(random.next());
    struct Types {
      DType src;
      DType dst;
    };
    for (const Types& types : {Types{DType::qai8, DType::qai8}, Types{DType::qai8, DType::f16},
                               Types{DType::f16, DType::f16}}) {
      CAPTURE(name_of(types.src));
      CAPTURE(name_of(types.dst));
      const Conv2dTypes rows{.src = types.src, .dst = types.dst, .src_row = 0, .dst_row = 1};
      const bool int8 = types.src == DType::qai8;
      const TensorView input{.data = int8 ? static_cast<void*>(levels.data()) : halves.data(),
                             .dtype = types.src,
                             .shape = test.input};
      const auto op = make_conv2d(spec, rows, Algorithm::automatic, selection);
      CHECK(op->kernel().starts_with(test.kernel_begins));
      const auto whole = make_conv2d(dense, rows, Algorithm::direct, selection);
      const auto result = run(*op, input, types.dst, table, 1);
      CHECK(run(*op, input, types.dst, table, 3) == result);
      const auto expected = run(*whole, input, types.dst, table, 1);
      const Shape output = op->prepare(std::span(&test.input, 1), 1);
      CHECK(output == whole->prepare(std::span(&test.input, 1), 1));
      // A level halfway between two steps may go to either, as output stages round differently.
      std::int64_t different = 0;
      for (std::int64_t i = 0; i < output.elements(); ++i) {
        if (i % output.stride() >= output.channels) continue;
        const auto value = [&](const std::vector<std::byte>& bytes) {
          const auto at = static_cast<std::size_t>(i) * size_of(types.dst);
          return types.dst == DType::qai8 ? static_cast<float>(static_cast<std::int8_t>(bytes[at]))
                                          : to_float(*reinterpret_cast<const half*>(&bytes[at]));
        };
        const float error = std::abs(value(result) - value(expected));
        CHECK(error <= (types.dst == DType::qai8 ? 1.0F : 0.01F));
        if (error > 0.01F) ++different;
      }
      CHECK(different * 50 <= output.pixels() * output.channels);
    }
  }
}

}  // namespace qpp
