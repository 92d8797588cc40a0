// SPDX-License-Identifier: Apache-2.0
//
// The convolution operation (borders, strides, tiles, threads) against a plain seven-fold loop.

#include <doctest/doctest.h>

#include <cmath>

#include "dense_sparse.h"
#include "network/qp_table.h"
#include "ops/conv2d.h"
#include "support.h"

namespace qpp {
namespace {

struct Case {
  Shape input;
  std::int64_t filters;
  Size2d kernel;
  Size2d stride;
  Padding padding;
  Size2d dilation;
};

const std::vector<Case> kCases = {
    {{1, 5, 7, 3}, 4, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{2, 9, 20, 8}, 16, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{1, 4, 33, 12}, 24, {3, 3}, {1, 1}, {0, 0}, {1, 1}},
    {{1, 8, 9, 1}, 10, {5, 5}, {1, 1}, {2, 2}, {1, 1}},
    {{1, 7, 11, 17}, 8, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {{3, 3, 3, 8}, 8, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
    {{1, 6, 10, 4}, 40, {3, 1}, {1, 2}, {1, 0}, {1, 1}},
    {{1, 9, 9, 16}, 8, {3, 3}, {1, 1}, {2, 2}, {2, 2}},
    {{1, 12, 18, 20}, 9, {7, 7}, {2, 2}, {3, 3}, {1, 1}},
    {{1, 3, 26, 64}, 64, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{2, 1, 1, 5}, 3, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{2, 6, 21, 18}, 18, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{1, 5, 19, 36}, 8, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {{2, 9, 11, 3}, 5, {3, 2}, {1, 1}, {2, 1}, {2, 1}},
    {{1, 2, 40, 1}, 8, {1, 5}, {1, 1}, {0, 0}, {1, 1}},
    {{1, 4, 8, 24}, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{2, 5, 16, 8}, 8, {3, 3}, {1, 1}, {2, 2}, {1, 1}},
    {{1, 1, 6, 16}, 8, {3, 3}, {1, 1}, {2, 2}, {1, 1}},
    {{5, 2, 3, 18}, 18, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {{5, 3, 2, 3}, 8, {3, 3}, {2, 1}, {1, 1}, {1, 1}},
    {{2, 7, 5, 9}, 8, {1, 2}, {3, 1}, {0, 1}, {1, 1}},
    {{2, 7, 10, 12}, 8, {2, 2}, {1, 1}, {0, 0, 1, 1}, {1, 1}},
    {{1, 8, 17, 8}, 8, {3, 3}, {1, 1}, {2, 0, -1, 1}, {1, 1}},
    {{2, 9, 20, 3}, 8, {5, 5}, {2, 2}, {1, 2, 1, -1}, {1, 1}},
};

Conv2dSpec make_spec(const Case& test, test::Random& random) {
  Conv2dSpec spec;
  spec.name = "conv";
  spec.filters = test.filters;
  spec.channels = test.input.channels;
  spec.kernel = test.kernel;
  spec.stride = test.stride;
  spec.padding = test.padding;
  spec.dilation = test.dilation;
  spec.weights = random.list(
      test.filters * test.input.channels * test.kernel.height * test.kernel.width, 0.5F);
  spec.bias = random.list(test.filters);
  return spec;
}

/// Sum over taps and channels of source(n, y, x, c) * weight(f, c, ky, kx); sources beyond the
/// border are skipped.
template <typename Source, typename Weight>
double convolve(const Case& test, const Shape& output, std::int64_t pixel, std::int64_t f,
                const Source& source, const Weight& weight) {
  const std::int64_t x = pixel % output.width;
  const std::int64_t y = pixel / output.width % output.height;
  const std::int64_t n = pixel / output.width / output.height;
  double sum = 0;
  for (std::int64_t ky = 0; ky < test.kernel.height; ++ky) {
    for (std::int64_t kx = 0; kx < test.kernel.width; ++kx) {
      const std::int64_t iy =
          y * test.stride.height - test.padding.height + ky * test.dilation.height;
      const std::int64_t ix = x * test.stride.width - test.padding.width + kx * test.dilation.width;
      if (iy < 0 || ix < 0 || iy >= test.input.height || ix >= test.input.width) continue;
      for (std::int64_t c = 0; c < test.input.channels; ++c) {
        const std::int64_t at =
            ((n * test.input.height + iy) * test.input.width + ix) * test.input.stride() + c;
        sum +=
            static_cast<double>(source(at)) *
            weight(((f * test.input.channels + c) * test.kernel.height + ky) * test.kernel.width +
                   kx);
      }
    }
  }
  return sum;
}

template <typename Dst>
std::vector<Dst> run(Conv2d& conv, const TensorView& input, DType dst, QpTable& table,
                     int threads) {
  ThreadPool pool(threads);
  const Shape output = conv.prepare(std::span(&input.shape, 1), threads);
  AlignedVector<std::byte> scratch(conv.scratch_bytes());
  std::vector<Dst> result(static_cast<std::size_t>(output.elements()));
  RunState state = table.state(pool);
  conv.run({.inputs = std::span(&input, 1),
            .output = {.data = result.data(), .dtype = dst, .shape = output},
            .scratch = scratch.data()},
           state);
  return result;
}

QpTable table_with(float src_lo, float src_hi, float dst_lo, float dst_hi) {
  QpTable table(2, 0);
  table.qparams[0] = choose_qparams(src_lo, src_hi, 8);
  table.qparams[1] = choose_qparams(dst_lo, dst_hi, 8);
  return table;
}

}  // namespace

TEST_CASE("int8 to int8: the integer nearest to the level, whatever the thread count") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Case& test : kCases) {
    CAPTURE(to_string(test.input));
    test::Random random(11);
    Conv2dSpec spec = make_spec(test, random);
    spec.activation.lo = -0.75F;
    QpTable table = table_with(-0.7F, 1.3F, -1.5F, 2.0F);
    const QParams src = table.qparams[0];
    const QParams dst = table.qparams[1];
    // The contents of padding channels must not matter.
    std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()));
    for (auto& value : data) value = static_cast<std::int8_t>(random.next() * 127.0F);
    const TensorView input{.data = data.data(), .dtype = DType::qai8, .shape = test.input};

    Conv2d conv(spec, {.src = DType::qai8, .dst = DType::qai8, .src_row = 0, .dst_row = 1},
                selection);
    const auto result = run<std::int8_t>(conv, input, DType::qai8, table, 1);
    CHECK(run<std::int8_t>(conv, input, DType::qai8, table, 3) == result);

    const Shape output = conv.prepare(std::span(&test.input, 1), 1);
    for (std::int64_t pixel = 0; pixel < output.pixels(); ++pixel) {
      for (std::int64_t f = 0; f < output.channels; ++f) {
        const std::int64_t per_filter =
            static_cast<std::int64_t>(spec.weights.size()) / spec.filters;
        float largest = 0;
        for (std::int64_t i = 0; i < per_filter; ++i) {
          largest = std::max(largest,
                             std::abs(spec.weights[static_cast<std::size_t>(f * per_filter + i)]));
        }
        const float scale = largest / 127.0F;
        const double sum = convolve(
            test, output, pixel, f,
            [&](std::int64_t at) { return data[static_cast<std::size_t>(at)] - src.zero_point; },
            [&](std::int64_t at) {
              return std::nearbyint(spec.weights[static_cast<std::size_t>(at)] / scale);
            });
        const float multiplier = scale * src.scale * dst.inverse_scale;
        const float level = std::fma(static_cast<float>(sum), multiplier,
                                     spec.bias[static_cast<std::size_t>(f)] * dst.inverse_scale);
        const float lo =
            std::max(static_cast<float>(dst.qmin - dst.zero_point), -0.75F * dst.inverse_scale);
        const float hi = static_cast<float>(dst.qmax - dst.zero_point);
        const auto got =
            static_cast<float>(result[static_cast<std::size_t>(pixel * output.stride() + f)]);
        // The fast path of the output stage is off by half a step of the accumulators at most.
        const float error = got - static_cast<float>(dst.zero_point) - std::clamp(level, lo, hi);
        REQUIRE(std::abs(error) <= 0.5F + std::min(multiplier, 1.0F / 256) / 2 + 1e-4F);
      }
    }
  }
}

TEST_CASE("fp16: within rounding of the exact sum; ranges are measured on the way out") {
  const KernelSelection selection = KernelSelection::from_environment();
  for (const Case& test : kCases) {
    CAPTURE(to_string(test.input));
    test::Random random(12);
    Conv2dSpec spec = make_spec(test, random);
    for (float& weight : spec.weights) weight = to_float(to_half(weight));
    spec.activation.nonlinearity =
        test.filters % 16 == 0 ? Nonlinearity::tanh : Nonlinearity::clamp;
    std::vector<half> data(static_cast<std::size_t>(test.input.elements()));
    for (std::size_t i = 0; i < data.size(); ++i) {
      const bool padding =
          static_cast<std::int64_t>(i) % test.input.stride() >= test.input.channels;
      data[i] = to_half(padding ? 0.0F : random.next());
    }
    const TensorView input{.data = data.data(), .dtype = DType::f16, .shape = test.input};
    QpTable table = table_with(0, 1, 0, 1);
    Conv2d conv(spec, {.range_row = 1}, selection);
    const auto result = run<half>(conv, input, DType::f16, table, 2);

    const Shape output = conv.prepare(std::span(&test.input, 1), 1);
    Range expected_range{
        .lo = 0, .hi = 0};  // padding channels hold the activation of zero, which is zero here
    for (std::int64_t pixel = 0; pixel < output.pixels(); ++pixel) {
      for (std::int64_t f = 0; f < output.channels; ++f) {
        double expected = convolve(
            test, output, pixel, f,
            [&](std::int64_t at) { return to_float(data[static_cast<std::size_t>(at)]); },
            [&](std::int64_t at) { return spec.weights[static_cast<std::size_t>(at)]; });
        expected += spec.bias[static_cast<std::size_t>(f)];
        if (spec.activation.nonlinearity == Nonlinearity::tanh) expected = std::tanh(expected);
        const float got = to_float(result[static_cast<std::size_t>(pixel * output.stride() + f)]);
        // Ten times the relative rms error that kernels may have; a sum of n products of values
        // uniform over [-1, 1] and [-0.5, 0.5] has an rms of sqrt(n) / 6.
        const auto terms =
            static_cast<double>(spec.weights.size()) / static_cast<double>(spec.filters);
        const double rms = std::sqrt(terms) / 6;
        REQUIRE(std::abs(got - expected) <= 1e-2 * std::max(rms, 1.0));
        extend_range(expected_range, got);
      }
    }
    CHECK(std::min(table.ranges[1].lo, 0.0F) == expected_range.lo);
    CHECK(std::max(table.ranges[1].hi, 0.0F) == expected_range.hi);
  }
}

TEST_CASE("fp16 to int8 and int8 to fp16 agree with the fp16 result to half a step") {
  const KernelSelection selection = KernelSelection::from_environment();
  const Case test{{1, 6, 19, 8}, 16, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  test::Random random(13);
  const Conv2dSpec spec = make_spec(test, random);
  QpTable table = table_with(-1, 1, -8, 8);
  const QParams src = table.qparams[0];
  const QParams dst = table.qparams[1];
  std::vector<std::int8_t> quantized(static_cast<std::size_t>(test.input.elements()));
  std::vector<half> real(quantized.size());
  for (std::size_t i = 0; i < quantized.size(); ++i) {
    quantized[i] = static_cast<std::int8_t>(random.next() * 127.0F);
    real[i] = to_half(static_cast<float>(quantized[i] - src.zero_point) * src.scale);
  }
  const TensorView input8{.data = quantized.data(), .dtype = DType::qai8, .shape = test.input};
  const TensorView input16{.data = real.data(), .dtype = DType::f16, .shape = test.input};
  Conv2d plain(spec, {}, selection);
  Conv2d from_int8(spec, {.src = DType::qai8, .src_row = 0}, selection);
  Conv2d to_int8(spec, {.dst = DType::qai8, .dst_row = 1}, selection);
  const auto expected = run<half>(plain, input16, DType::f16, table, 1);
  const auto got16 = run<half>(from_int8, input8, DType::f16, table, 1);
  const auto got8 = run<std::int8_t>(to_int8, input16, DType::qai8, table, 1);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(to_float(got16[i]) == doctest::Approx(to_float(expected[i])).scale(1).epsilon(0.03));
    const float back = static_cast<float>(got8[i] - dst.zero_point) * dst.scale;
    CHECK(std::abs(back - to_float(expected[i])) <= 0.5F * dst.scale + 0.01F);
  }
}

namespace {

/// Checks a dense + sparse source, `density` of which are outliers, up to levels of `farthest`,
/// against plain sums of levels.
void check_dense_sparse(const Case& test, float density, bool sparse_dst, float farthest = 400) {
  CAPTURE(to_string(test.input));
  CAPTURE(density);
  test::Random random(17);
  const Conv2dSpec spec = make_spec(test, random);
  // A few percent of the outputs are outside.
  const auto sum_terms = static_cast<float>(spec.weights.size()) / static_cast<float>(spec.filters);
  const float extent = 0.5F + 0.35F * std::sqrt(sum_terms);
  QpTable table = table_with(-0.7F, 1.3F, -extent, 1.2F * extent);
  const QParams src = table.qparams[0];
  test::DenseSparse input(test.input);
  input.fill(test::random_levels(test.input, density, random, farthest), src);
  const std::vector<int> levels = input.levels();  // as fp16 holds them
  CAPTURE(farthest);

  Conv2d conv(spec, test::dense_sparse_types(true, sparse_dst),
              KernelSelection::from_environment());
  test::DenseSparse output = test::run_dense_sparse(conv, input, table, sparse_dst);
  const QParams dst = table.qparams[1];
  const std::vector<int> result = output.levels();
  const Shape& shape = output.shape;

  for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel) {
    for (std::int64_t f = 0; f < shape.channels; ++f) {
      const std::int64_t per_filter = static_cast<std::int64_t>(spec.weights.size()) / spec.filters;
      float largest = 0;
      for (std::int64_t i = f * per_filter; i < (f + 1) * per_filter; ++i) {
        largest = std::max(largest, std::abs(spec.weights[static_cast<std::size_t>(i)]));
      }
      const float scale = largest / 127.0F;
      const auto weight = [&](std::int64_t at) {
        return std::nearbyint(spec.weights[static_cast<std::size_t>(at)] / scale);
      };
      const double sum = convolve(
          test, shape, pixel, f,
          [&](std::int64_t at) { return levels[static_cast<std::size_t>(at)] - src.zero_point; },
          weight);
      const double magnitude = convolve(
          test, shape, pixel, f,
          [&](std::int64_t at) {
            const int level = levels[static_cast<std::size_t>(at)];
            return std::abs(level - std::clamp(level, src.qmin, src.qmax));
          },
          [&](std::int64_t at) { return std::abs(weight(at)); });
      const double multiplier =
          static_cast<double>(scale) * src.scale * static_cast<double>(dst.inverse_scale);
      double level =
          sum * multiplier +
          static_cast<double>(spec.bias[static_cast<std::size_t>(f)] * dst.inverse_scale) +
          dst.zero_point;
      if (!sparse_dst) level = std::clamp<double>(level, dst.qmin, dst.qmax);
      // Half a step, half one of the accumulators, and the error of fp16 sums of residuals.
      // Large ones, and the sums that they are added to, are rounded to fp16 twice.
      const double far = farthest > 400 ? 0.5 + std::abs(level) * 0x1p-10 : 0;
      const double bound =
          0.5 + std::min(multiplier, 1.0 / 256) / 2 + 1e-3 + magnitude * multiplier * 0x1p-9 + far;
      const int got = result[static_cast<std::size_t>(pixel * shape.stride() + f)];
      REQUIRE(std::abs(got - level) <= bound);
    }
  }
}

}  // namespace

TEST_CASE("dense + sparse: outliers count in full, read and written, whatever the thread count") {
  for (const Case& test : kCases) {
    check_dense_sparse(test, 0.02F, true);
    check_dense_sparse(test, 0.02F, false);
  }
}

TEST_CASE("dense + sparse: outliers count in full however far they are") {
  for (const Case& test : kCases) {
    for (const float farthest : {4e3F, 3e4F, 1e6F}) {
      check_dense_sparse(test, 0.01F, true, farthest);
      check_dense_sparse(test, 0.01F, false, farthest);
    }
  }
}

TEST_CASE("dense + sparse: outliers beyond the capacity are counted") {
  const Case test{{1, 5, 6, 8}, 8, {1, 1}, {1, 1}, {0, 0}, {1, 1}};
  test::Random random(19);
  Conv2dSpec spec = make_spec(test, random);
  std::fill(spec.weights.begin(), spec.weights.end(), 1.0F);
  std::fill(spec.bias.begin(), spec.bias.end(), 0.0F);
  QpTable table = table_with(0, 1, 0, 1);
  test::DenseSparse input(test.input);
  input.fill(std::vector<int>(input.dense.size(), 100), table.qparams[0]);  // sums of 7.2
  Conv2d conv(spec, test::dense_sparse_types(true, true), KernelSelection::from_environment());
  test::DenseSparse output = test::run_dense_sparse(conv, input, table);
  const OutlierRow row = output.view().outliers.row(4);
  CHECK(row.begins[test.input.width] == row.capacity);
  const std::int64_t elements = test.input.width * test.filters;
  CHECK(output.view().outliers.dropped() == test.input.height * (elements - row.capacity));
}

TEST_CASE("dense + sparse: many outliers, none at all") {
  const Case test{{2, 6, 13, 16}, 24, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  check_dense_sparse(test, 0.0F, true);
  check_dense_sparse(test, 0.1F, true);
}

TEST_CASE("outliers that exceed the capacity of a row are dropped; the others are unchanged") {
  test::Random random(3);
  const Case test{{1, 3, 8, 8}, 8, {1, 1}, {1, 1}, {0, 0}, {1, 1}};
  Conv2dSpec spec = make_spec(test, random);
  std::fill(spec.weights.begin(), spec.weights.end(), 0.0F);
  std::fill(spec.bias.begin(), spec.bias.end(), 4.0F);
  QpTable table = table_with(-1, 1, -1, 1);
  std::vector<std::int8_t> data(static_cast<std::size_t>(test.input.elements()));
  const TensorView input{.data = data.data(), .dtype = DType::qai8, .shape = test.input};
  Conv2d conv(
      spec,
      {.src = DType::qai8, .dst = DType::qai8, .sparse_dst = true, .src_row = 0, .dst_row = 1},
      KernelSelection::from_environment());
  test::DenseSparse output(conv.prepare(std::span(&test.input, 1), 1));
  ThreadPool pool(1);
  AlignedVector<std::byte> scratch(conv.scratch_bytes());
  RunState state = table.state(pool);
  conv.run({.inputs = std::span(&input, 1), .output = output.view(), .scratch = scratch.data()},
           state);
  const std::vector<int> levels = output.levels();
  const auto all = std::lround(4.0F * table.qparams[1].inverse_scale) + table.qparams[1].zero_point;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    CHECK(levels[i] == (i % 64 < 16 ? all : 127));  // a quarter of a row's 64 elements
  }
}

TEST_CASE("prepare() names the node and the expected input") {
  test::Random random(1);
  const Case test{{1, 4, 4, 3}, 8, {3, 3}, {1, 1}, {0, 0}, {1, 1}};
  Conv2d conv(make_spec(test, random), {}, KernelSelection::from_environment());
  const Shape wrong{1, 4, 4, 5};
  CHECK_THROWS_WITH_AS(conv.prepare(std::span(&wrong, 1), 1),
                       "node 'conv' (conv2d): expected an input of 3 channels, got [1, 5, 4, 4]",
                       ShapeError);
  const Shape small{1, 2, 2, 3};
  CHECK_THROWS_AS(conv.prepare(std::span(&small, 1), 1), ShapeError);
}

TEST_CASE("whatever the CPU offers, \"ref\" selects the reference, and a name that kernel") {
  const CpuFeatures cpu = detect_cpu_features();
  const KernelSelection references(cpu, "ref");
  for (const DType src : {DType::f16, DType::qai8}) {
    for (const DType dst : {DType::f16, DType::qai8}) {
      const ConvKernel& reference = references.conv(dst, src);
      CHECK(std::string_view(reference.info.name).ends_with("_ref"));
      CHECK(&KernelSelection(cpu, reference.info.name).conv(dst, src) == &reference);
      CHECK(&KernelSelection({}, "").conv(dst, src) == &reference);
      CHECK(cpu.covers(KernelSelection(cpu, "").conv(dst, src).info.needs));
    }
  }
  CHECK_THROWS_AS(KernelSelection(cpu, "no such kernel"), UnsupportedError);
  for (const KernelInfo& info : all_kernels()) {
    if (!cpu.covers(info.needs)) CHECK_THROWS_AS(KernelSelection(cpu, info.name), UnsupportedError);
  }
}

}  // namespace qpp
