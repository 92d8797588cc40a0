// SPDX-License-Identifier: Apache-2.0
//
// Convolution by Winograd's algorithm against the plain sum in double: the error bound, ragged
// shapes, borders, zero points, saturation, threads.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "dense_sparse.h"
#include "network/qp_table.h"
#include "ops/conv_algorithm.h"
#include "ops/winograd.h"
#include "support.h"

namespace qpp {
namespace {

constexpr double kErrorBound = 5e-3;  // relative rms, before an output is quantized
// The same where few outliers are nearly all of the power: the rounding of one spreads over the 16
// outputs of its tile, of which it may reach only one.
constexpr double kFarErrorBound = 1.5e-2;
constexpr float kFar = 1e4F;

struct Case {
  Shape input;
  std::int64_t filters;
  Padding padding;
};

const std::vector<Case> kRaggedCases = {
    {{1, 5, 7, 3}, 4, {1, 1}},  {{2, 9, 20, 8}, 16, {1, 1}}, {{1, 4, 33, 12}, 24, {0, 0}},
    {{1, 3, 3, 17}, 9, {0, 0}}, {{1, 1, 1, 5}, 3, {1, 1}},   {{1, 8, 8, 16}, 8, {2, 2}},
    {{1, 2, 70, 8}, 8, {1, 2}}, {{3, 6, 6, 40}, 8, {1, 0}},
};

/// A convolution as in networks: normal weights of He's variance, rectified normal sources.
struct Problem {
  Problem(const Case& problem, std::uint64_t seed) : test(problem), random(seed) {
    spec.name = "conv";
    spec.filters = test.filters;
    spec.channels = test.input.channels;
    spec.kernel = {.height = 3, .width = 3};
    spec.padding = test.padding;
    const auto terms = static_cast<float>(spec.channels * 9);
    for (std::int64_t i = 0; i < spec.filters * spec.channels * 9; ++i) {
      spec.weights.push_back(to_float(to_half(normal() * std::sqrt(2 / terms))));
    }
    spec.bias = random.list(spec.filters, 0.1F);
  }

  float normal() {
    float sum = 0;
    for (int i = 0; i < 12; ++i) sum += random.next();
    return sum / 2;
  }

  /// The sources in padding channels must not matter.
  std::vector<half> half_sources(float magnitude = 1) {
    std::vector<half> data;
    for (std::int64_t i = 0; i < test.input.elements(); ++i) {
      const bool padding = i % test.input.stride() >= test.input.channels;
      data.push_back(to_half(padding ? 65504.0F : std::max(normal(), 0.0F) * magnitude));
    }
    return data;
  }

  /// Sums of products and the bias at every element of the output.
  template <typename Value>
  std::vector<double> convolve(const Shape& output, const Value& value) const {
    std::vector<double> sums;
    for (std::int64_t i = 0; i < output.elements(); ++i) {
      const std::int64_t f = i % output.stride();
      const std::int64_t pixel = i / output.stride();
      sums.push_back(f < spec.filters ? convolve(output, pixel, f, value) : 0.0);
    }
    return sums;
  }

  template <typename Value>
  double convolve(const Shape& output, std::int64_t pixel, std::int64_t f,
                  const Value& value) const {
    const std::int64_t x = pixel % output.width - spec.padding.width;
    const std::int64_t y = pixel / output.width % output.height - spec.padding.height;
    const std::int64_t n = pixel / output.width / output.height;
    double sum = spec.bias[static_cast<std::size_t>(f)];
    for (std::int64_t tap = 0; tap < 9; ++tap) {
      const std::int64_t iy = y + tap / 3;
      const std::int64_t ix = x + tap % 3;
      if (iy < 0 || ix < 0 || iy >= test.input.height || ix >= test.input.width) continue;
      const std::int64_t first =
          ((n * test.input.height + iy) * test.input.width + ix) * test.input.stride();
      for (std::int64_t c = 0; c < spec.channels; ++c) {
        sum += static_cast<double>(value(static_cast<std::size_t>(first + c))) *
               spec.weights[static_cast<std::size_t>((f * spec.channels + c) * 9 + tap)];
      }
    }
    return sum;
  }

  Case test;
  test::Random random;
  Conv2dSpec spec;
};

template <typename Dst, typename Src>
std::vector<Dst> run(Problem& problem, std::vector<Src>& data, Conv2dTypes types, QpTable& table,
                     int threads) {
  types.src = sizeof(Src) == 1 ? DType::qai8 : DType::f16;
  types.dst = sizeof(Dst) == 1 ? DType::qai8 : DType::f16;
  WinogradConv2d conv(problem.spec, types, KernelSelection::from_environment());
  ThreadPool pool(threads);
  const Shape output = conv.prepare(std::span(&problem.test.input, 1), threads);
  AlignedVector<std::byte> scratch(conv.scratch_bytes(), std::byte{0xff});
  std::vector<Dst> result(static_cast<std::size_t>(output.elements()));
  RunState state = table.state(pool);
  const TensorView input{.data = data.data(), .dtype = types.src, .shape = problem.test.input};
  conv.run({.inputs = std::span(&input, 1),
            .output = {.data = result.data(), .dtype = types.dst, .shape = output},
            .scratch = scratch.data()},
           state);
  return result;
}

Shape output_shape(const Case& test) {
  return {.batch = test.input.batch,
          .height = test.input.height + test.padding.rows() - 2,
          .width = test.input.width + test.padding.columns() - 2,
          .channels = test.filters};
}

double relative_rms_error(const std::vector<half>& result, const std::vector<double>& expected) {
  double error = 0;
  double power = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    error += std::pow(to_float(result[i]) - expected[i], 2);
    power += std::pow(expected[i], 2);
  }
  return std::sqrt(error / power);
}

/// Checks a convolution with dense + sparse values, up to levels of `farthest`, against plain sums
/// of levels.
void check_dense_sparse(const Case& test, bool sparse_src, bool sparse_dst, float farthest = 400) {
  CAPTURE(to_string(test.input));
  CAPTURE(sparse_src);
  CAPTURE(sparse_dst);
  Problem problem(test, 30);
  QpTable table(2, 0);
  const QParams src = table.qparams[0] = choose_qparams(-0.7F, 1.3F, 8);
  table.qparams[1] = choose_qparams(-1.8F, 2.2F, 8);
  test::DenseSparse input(test.input);
  input.fill(test::random_levels(test.input, sparse_src ? 0.02F : 0.0F, problem.random, farthest),
             src);
  const std::vector<int> levels = input.levels();  // as fp16 holds them
  CAPTURE(farthest);
  WinogradConv2d conv(problem.spec, test::dense_sparse_types(sparse_src, sparse_dst),
                      KernelSelection::from_environment());
  test::DenseSparse output = test::run_dense_sparse(conv, input, table, sparse_dst);
  const QParams dst = table.qparams[1];
  const std::vector<int> result = output.levels();
  const Shape& shape = output.shape;

  const auto expected = problem.convolve(shape, [&](std::size_t at) {
    return static_cast<float>(levels[at] - src.zero_point) * src.scale;
  });
  double error = 0;
  double power = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    double level = expected[i] * dst.inverse_scale;
    power += level * level;
    if (!sparse_dst) {
      level = std::clamp<double>(level, dst.qmin - dst.zero_point, dst.qmax - dst.zero_point);
    }
    error += std::pow(result[i] - dst.zero_point - level, 2);
  }
  const auto count = static_cast<double>(shape.pixels() * shape.channels);
  constexpr double kRounding = 1.0 / 12;  // of levels, in power
  const double bound = farthest < kFar ? kErrorBound : kFarErrorBound;
  CHECK(error / count < std::pow(bound, 2) * power / count + 1.5 * kRounding);
}

}  // namespace

TEST_CASE("winograd: fp16 within 0.5 % rms for ragged shapes, the same for any thread count") {
  for (const Case& test : kRaggedCases) {
    CAPTURE(to_string(test.input));
    Problem problem(test, 21);
    std::vector<half> data = problem.half_sources();
    QpTable table(1, 0);
    const auto result = run<half>(problem, data, {.range_row = 0}, table, 1);
    const auto expected =
        problem.convolve(output_shape(test), [&](std::size_t at) { return to_float(data[at]); });
    CHECK(relative_rms_error(result, expected) < kErrorBound);
    Range range;
    for (const half value : result) extend_range(range, to_float(value));
    CHECK(table.ranges[0].lo == range.lo);
    CHECK(table.ranges[0].hi == range.hi);

    const auto parallel = run<half>(problem, data, {}, table, 3);
    for (std::size_t i = 0; i < result.size(); ++i) REQUIRE(result[i].bits == parallel[i].bits);
  }
}

TEST_CASE("winograd: fp16 within 0.5 % rms for all depths and magnitudes") {
  for (const std::int64_t channels : {64, 136, 512}) {
    for (const float magnitude : {0.03F, 1.0F, 60.0F}) {
      CAPTURE(channels);
      CAPTURE(magnitude);
      Problem problem({{1, 10, 10, channels}, 16, {0, 0}}, 22);
      std::vector<half> data = problem.half_sources(magnitude);
      for (float& bias : problem.spec.bias) bias *= magnitude;
      QpTable table(1, 0);
      const auto result = run<half>(problem, data, {}, table, 1);
      const auto expected = problem.convolve(output_shape(problem.test),
                                             [&](std::size_t at) { return to_float(data[at]); });
      const double error = relative_rms_error(result, expected);
      CHECK(error < kErrorBound);
    }
  }
}

TEST_CASE("winograd: int8 sources within 0.5 % rms, whatever the zero point") {
  for (const float lo : {0.0F, -1.0F, -3.0F}) {
    for (const Case& test : {kRaggedCases[2], Case{{1, 10, 10, 64}, 16, {0, 0}}}) {
      CAPTURE(lo);
      CAPTURE(to_string(test.input));
      Problem problem(test, 23);
      QpTable table(2, 0);
      const QParams src = table.qparams[0] = choose_qparams(lo, 3.0F + lo, 8);
      std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()));
      for (std::int8_t& value : data) {
        const float level = std::max(problem.normal(), lo) / src.scale;
        value = static_cast<std::int8_t>(std::clamp(
            std::nearbyint(level) + static_cast<float>(src.zero_point), -128.0F, 127.0F));
      }
      const auto result = run<half>(problem, data, {.src_row = 0}, table, 2);
      const auto expected = problem.convolve(output_shape(test), [&](std::size_t at) {
        return static_cast<float>(data[at] - src.zero_point) * src.scale;
      });
      const double error = relative_rms_error(result, expected);
      CHECK(error < kErrorBound);
    }
  }
}

TEST_CASE(
    "winograd: int8 destinations are the nearest levels of the sums, clipped to their bounds") {
  const Case test{{1, 7, 10, 24}, 16, {1, 1}};
  Problem problem(test, 24);
  problem.spec.activation.lo = -0.5F;
  QpTable table(2, 0);
  const QParams src = table.qparams[0] = choose_qparams(-1, 3, 8);
  const QParams dst = table.qparams[1] = choose_qparams(-1, 1.5F, 8);
  std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()));
  for (std::int8_t& value : data) value = static_cast<std::int8_t>(problem.random.next() * 127);
  const auto result = run<std::int8_t>(problem, data, {.src_row = 0, .dst_row = 1}, table, 1);
  const auto expected = problem.convolve(output_shape(test), [&](std::size_t at) {
    return static_cast<float>(data[at] - src.zero_point) * src.scale;
  });
  double power = 0;
  for (const double value : expected) power += value * value / static_cast<double>(expected.size());
  const double tolerance = 5 * kErrorBound * std::sqrt(power) * dst.inverse_scale;
  int clipped = 0;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double lo = std::max(-0.5 * dst.inverse_scale, -128.0 - dst.zero_point);
    const double hi = 127.0 - dst.zero_point;
    const double level = std::clamp(expected[i] * dst.inverse_scale, lo, hi);
    clipped += level == lo || level == hi ? 1 : 0;
    REQUIRE(std::abs(result[i] - dst.zero_point - level) <= 0.5 + tolerance);
  }
  CHECK(clipped > 20);
}

TEST_CASE("winograd: int8 sources at the ends of their range cannot overflow") {
  const Case test{{1, 6, 6, 64}, 8, {0, 0}};
  Problem problem(test, 25);
  std::fill(problem.spec.weights.begin(), problem.spec.weights.end(), 1.0F);
  QpTable table(2, 0);
  const QParams src = table.qparams[0] = choose_qparams(0, 255, 8);
  table.qparams[1] = choose_qparams(0, 1e6F, 8);
  for (const bool alternating : {false, true}) {
    std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()), 127);
    for (std::size_t i = 0; alternating && i < data.size(); i += 3) data[i] = -128;
    const auto result = run<half>(problem, data, {.src_row = 0}, table, 1);
    const auto expected = problem.convolve(output_shape(test), [&](std::size_t at) {
      return static_cast<float>(data[at] - src.zero_point);
    });
    for (std::size_t i = 0; i < result.size(); ++i) {
      // 64 * 9 * 255 passes the largest fp16: then, and only then, infinity is the result.
      const double value = to_float(result[i]);
      REQUIRE((expected[i] > 66000 ? value == INFINITY
                                   : std::abs(value - expected[i]) <= 0.02 * expected[i]));
    }
    const auto quantized = run<std::int8_t>(problem, data, {.src_row = 0, .dst_row = 1}, table, 1);
    for (std::size_t i = 0; i < quantized.size(); ++i) {
      const double level = expected[i] * table.qparams[1].inverse_scale;
      REQUIRE(std::abs(quantized[i] - table.qparams[1].zero_point - level) <= 1);
    }
  }
}

TEST_CASE("winograd: dense + sparse, read and written, whatever the thread count") {
  for (const Case& test : kRaggedCases) {
    for (const bool sparse_src : {true, false}) {
      for (const bool sparse_dst : {true, false}) {
        if (sparse_src || sparse_dst) check_dense_sparse(test, sparse_src, sparse_dst);
        if (!sparse_src) continue;
        for (const float farthest : {kFar, 1e6F}) {
          check_dense_sparse(test, true, sparse_dst, farthest);
        }
      }
    }
  }
}

TEST_CASE("winograd: tanh, with and without an int8 destination") {
  const Case test{{1, 6, 9, 16}, 8, {1, 1}};
  Problem problem(test, 26);
  problem.spec.activation.nonlinearity = Nonlinearity::tanh;
  std::vector<half> data = problem.half_sources();
  QpTable table(2, 0);
  const QParams dst = table.qparams[1] = choose_qparams(-1, 1, 8);
  const auto result = run<half>(problem, data, {}, table, 1);
  const auto quantized = run<std::int8_t>(problem, data, {.dst_row = 1}, table, 1);
  const auto sums =
      problem.convolve(output_shape(test), [&](std::size_t at) { return to_float(data[at]); });
  for (std::size_t i = 0; i < sums.size(); ++i) {
    REQUIRE(std::abs(to_float(result[i]) - std::tanh(sums[i])) < 0.02);
    const double back = (quantized[i] - dst.zero_point) * static_cast<double>(dst.scale);
    REQUIRE(std::abs(back - std::tanh(sums[i])) < 0.02 + 0.5 * dst.scale);
  }
}

TEST_CASE("algorithm=winograd applies to 3x3 convolutions of stride 1, others stay direct") {
  const KernelSelection selection = KernelSelection::from_environment();
  Problem problem({{1, 8, 8, 8}, 8, {1, 1}}, 27);
  const auto kernel = [&](Algorithm algorithm) {
    return make_conv2d(problem.spec, {}, algorithm, selection)->kernel();
  };
  CHECK(kernel(parse_algorithm("winograd")).starts_with("winograd4_multiply"));
  CHECK(kernel(parse_algorithm("direct")).starts_with("conv"));
  problem.spec.stride.width = 2;
  CHECK(kernel(Algorithm::winograd).starts_with("conv"));
  problem.spec.stride.width = 1;
  problem.spec.dilation.height = 2;
  CHECK(kernel(Algorithm::winograd).starts_with("conv"));
  CHECK_THROWS_AS(parse_algorithm("fft"), UnsupportedError);
}

TEST_CASE("algorithm=auto takes Winograd where its costs are known, and lower") {
  const KernelSelection selection = KernelSelection::from_environment();
  const bool known = selection.winograd4_multiply().info.needs.fp16;
  const auto kernel = [&](std::int64_t channels, const Conv2dTypes& types) {
    const Problem problem({{1, 8, 8, channels}, channels, {1, 1}}, 29);
    return make_conv2d(problem.spec, types, parse_algorithm("auto"), selection)->kernel();
  };
  const Conv2dTypes int8{.src = DType::qai8, .dst = DType::qai8, .src_row = 0, .dst_row = 1};
  CHECK(kernel(64, {}).starts_with("winograd4") == known);
  CHECK(kernel(64, int8).starts_with("winograd4") == known);
  CHECK(kernel(8, int8).starts_with("conv"));  // transforms cost more than they save
  // Where the weights outgrow the cache, reading them must not take longer than the multiplications
  // that they save.
  CHECK(kernel(320, {}).starts_with("winograd4") == known);
  CHECK(kernel(320, int8).starts_with("conv"));
}

TEST_CASE("winograd: prepare() names the node and says what it expected") {
  const Problem problem({{1, 4, 4, 3}, 8, {0, 0}}, 28);
  WinogradConv2d conv(problem.spec, {}, KernelSelection::from_environment());
  const Shape wrong{1, 4, 4, 5};
  CHECK_THROWS_WITH_AS(conv.prepare(std::span(&wrong, 1), 1),
                       "node 'conv' (conv2d): expected an input of 3 channels, got [1, 5, 4, 4]",
                       ShapeError);
  const Shape small{1, 2, 2, 3};
  CHECK_THROWS_AS(conv.prepare(std::span(&small, 1), 1), ShapeError);
}

}  // namespace qpp
