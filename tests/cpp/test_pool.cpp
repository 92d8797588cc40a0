// SPDX-License-Identifier: Apache-2.0
//
// Pools (borders, ceil mode, threads) against plain loops over the padded image.

#include <doctest/doctest.h>

#include <cmath>

#include "network/qp_table.h"
#include "ops/pool.h"
#include "support.h"

namespace qpp {
namespace {

struct Case {
  Shape input;
  Size2d kernel;
  Size2d stride;
  Padding padding;
  bool ceil_mode;
  Size2d output;
};

const std::vector<Case> kCases = {
    {{1, 8, 11, 3}, {3, 3}, {2, 2}, {1, 1}, false, {4, 6}},
    {{2, 7, 9, 24}, {2, 2}, {2, 2}, {0, 0}, true, {4, 5}},
    {{1, 6, 6, 40}, {3, 3}, {1, 1}, {1, 1}, false, {6, 6}},
    {{1, 5, 4, 8}, {5, 3}, {2, 3}, {2, 1}, true, {3, 2}},
    {{3, 2, 2, 16}, {4, 4}, {1, 1}, {2, 2}, false, {3, 3}},
    {{1, 4, 4, 8}, {2, 2}, {3, 3}, {1, 1}, true, {2, 2}},
    {{2, 6, 7, 8}, {3, 3}, {2, 2}, {0, 1, 1, -1}, false, {3, 3}},
    {{1, 2, 2, 8}, {3, 3}, {2, 2}, {0, 0}, true, {1, 1}},
    {{1, 2, 5, 16}, {5, 3}, {4, 2}, {0, 0}, true, {1, 2}},
};

/// Visits the elements of a window inside of the image and returns its size inside of the padding.
template <typename Visit>
std::int64_t for_window(const Case& test, std::int64_t index, const Visit& visit) {
  const std::int64_t stride = test.input.stride();
  const std::int64_t c = index % stride;
  const std::int64_t pixel = index / stride;
  const std::int64_t x = pixel % test.output.width * test.stride.width - test.padding.width;
  const std::int64_t y =
      pixel / test.output.width % test.output.height * test.stride.height - test.padding.height;
  const std::int64_t n = pixel / test.output.width / test.output.height;
  std::int64_t counted = 0;
  for (std::int64_t ky = y; ky < y + test.kernel.height; ++ky) {
    for (std::int64_t kx = x; kx < x + test.kernel.width; ++kx) {
      if (ky >= test.input.height + test.padding.rows() - test.padding.height) continue;
      if (kx >= test.input.width + test.padding.columns() - test.padding.width) continue;
      ++counted;
      if (ky < 0 || kx < 0 || ky >= test.input.height || kx >= test.input.width) continue;
      visit(((n * test.input.height + ky) * test.input.width + kx) * stride + c);
    }
  }
  return counted;
}

std::vector<std::int8_t> run(Pool& pool, std::vector<std::int8_t>& data, const Case& test,
                             int threads) {
  QpTable table(2, 0);
  table.qparams[0] = choose_qparams(-0.7F, 1.3F, 8);
  table.qparams[1] = choose_qparams(-0.5F, 1.0F, 8);
  ThreadPool workers(threads);
  const Shape output = pool.prepare(std::span(&test.input, 1), threads);
  CHECK(output.height == test.output.height);
  CHECK(output.width == test.output.width);
  AlignedVector<std::byte> scratch(pool.scratch_bytes());
  std::vector<std::int8_t> result(static_cast<std::size_t>(output.elements()));
  const TensorView input{.data = data.data(), .dtype = DType::qai8, .shape = test.input};
  RunState state = table.state(workers);
  pool.run({.inputs = std::span(&input, 1),
            .output = {.data = result.data(), .dtype = DType::qai8, .shape = output},
            .scratch = scratch.data()},
           state);
  return result;
}

std::vector<std::int8_t> draw(const Shape& shape) {
  test::Random random(8);
  std::vector<std::int8_t> data(static_cast<std::size_t>(shape.elements()));
  for (auto& value : data) value = static_cast<std::int8_t>(random.next() * 127);
  return data;
}

PoolSpec spec_of(const Case& test, PoolKind kind) {
  return {.name = "pool",
          .kind = kind,
          .kernel = test.kernel,
          .stride = test.stride,
          .padding = test.padding,
          .ceil_mode = test.ceil_mode};
}

constexpr PoolTypes kInt8{.src = DType::qai8, .dst = DType::qai8, .src_row = 0, .dst_row = 1};

}  // namespace

TEST_CASE("max pool of int8") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Case& test : kCases) {
    CAPTURE(to_string(test.input));
    auto data = draw(test.input);
    Pool pool(spec_of(test, PoolKind::max), kInt8, selection);
    const auto result = run(pool, data, test, 1);
    CHECK(run(pool, data, test, 3) == result);
    for (std::size_t i = 0; i < result.size(); ++i) {
      std::int8_t largest = -128;
      for_window(test, static_cast<std::int64_t>(i), [&](std::int64_t at) {
        largest = std::max(largest, data[static_cast<std::size_t>(at)]);
      });
      CHECK(result[i] == largest);
    }
  }
}

TEST_CASE("average pool of int8, with padding counted and not") {
  const KernelSelection selection = KernelSelection::from_environment();
  const QParams src = choose_qparams(-0.7F, 1.3F, 8);
  const QParams dst = choose_qparams(-0.5F, 1.0F, 8);
  for (const Case& test : kCases) {
    for (const bool include : {false, true}) {
      CAPTURE(to_string(test.input));
      CAPTURE(include);
      auto data = draw(test.input);
      PoolSpec spec = spec_of(test, PoolKind::average);
      spec.count_include_pad = include;
      Pool pool(spec, kInt8, selection);
      const auto result = run(pool, data, test, 2);
      for (std::size_t i = 0; i < result.size(); ++i) {
        double sum = 0;
        std::int64_t inside = 0;
        const std::int64_t padded =
            for_window(test, static_cast<std::int64_t>(i), [&](std::int64_t at) {
              sum += data[static_cast<std::size_t>(at)] - src.zero_point;
              ++inside;
            });
        const double mean = sum * src.scale / static_cast<double>(include ? padded : inside);
        const double level = std::clamp(mean / dst.scale + dst.zero_point, -128.0, 127.0);
        CHECK(std::abs(result[i] - level) < 0.501);
      }
    }
  }
}

TEST_CASE("global average pool") {
  const Case test{{2, 30, 41, 12}, {30, 41}, {1, 1}, {0, 0}, false, {1, 1}};
  auto data = draw(test.input);
  Pool pool({.name = "pool", .kind = PoolKind::average, .size = Size2d{}}, kInt8,
            KernelSelection::from_environment());
  Pool window(spec_of(test, PoolKind::average), kInt8, KernelSelection::from_environment());
  CHECK(run(pool, data, test, 2) == run(window, data, test, 1));
}

TEST_CASE("images smaller than the window are refused by name") {
  Pool pool(spec_of(kCases[0], PoolKind::max), {}, KernelSelection::from_environment());
  const Shape tiny{.batch = 1, .height = 4, .width = 0, .channels = 8};
  CHECK_THROWS_AS(pool.prepare(std::span(&tiny, 1), 1), ShapeError);
}

}  // namespace qpp
