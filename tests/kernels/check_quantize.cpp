// SPDX-License-Identifier: Apache-2.0
//
// Quantize and dequantize: every input there is, exactly.

#include <cmath>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Levels {
  float scale;
  std::int32_t zero_point;
  std::int32_t qmin;
  std::int32_t qmax;
};

const std::vector<Levels> kLevels = {
    {0.0117F, 3, -128, 127},
    {1.0F, 0, -128, 127},
    {0x1p-20F, -128, -128, 127},
    {333.3F, 127, -128, 127},
    {0.25F, -128, -128, 127},
    {0.5F, -2, -8, 7},
    {65504.0F, 1, -2, 1},
    {1e-30F, -5, -128, 127},
    {1e30F, 5, -128, 127},
    // Those whose inverse is a half, down to the least and up to the greatest one
    {1 / 1027.0F, -128, -128, 127},
    {1 / 0x1.ffcp-1F, 127, -128, 127},
    {1 / 0x1.554p5F, 7, -128, 127},
    {1 / 0x1.ff8p-9F, 0, -128, 127},
    {1 / 0x1.004p-10F, 0, -2, 1},
    {1 / 65504.0F, -3, -8, 7},
    {0x1p14F, 0, -2, 1},
    {0x1p24F, 0, -2, 1},
    {0x1p9F, 0, -128, 127},
    {0x1p8F, 0, -128, 127},
};

std::int8_t expected_level(half value, const Levels& levels) {
  const float level = to_float(value) * (1 / levels.scale);
  if (std::isnan(level)) return static_cast<std::int8_t>(levels.qmax);
  const float clamped =
      std::fmin(std::fmax(level, static_cast<float>(levels.qmin - levels.zero_point)),
                static_cast<float>(levels.qmax - levels.zero_point));
  return static_cast<std::int8_t>(static_cast<std::int32_t>(std::nearbyint(clamped)) +
                                  levels.zero_point);
}

void check_quantize(const QuantizeKernel& kernel, Trial& trial, const Levels& levels,
                    std::int64_t count, const std::function<half(std::int64_t)>& value) {
  trial.begin("count " + std::to_string(count) + ", scale " + text(levels.scale) + ", zero point " +
              std::to_string(levels.zero_point));
  const Guarded<half> src(count);
  for (std::int64_t i = 0; i < count; ++i) src[i] = value(i);
  const Destination<std::int8_t> dst(1, count, count);
  kernel.function({.src = src.data(),
                   .dst = dst.data(),
                   .count = count,
                   .inverse_scale = 1 / levels.scale,
                   .lo = static_cast<float>(levels.qmin - levels.zero_point),
                   .hi = static_cast<float>(levels.qmax - levels.zero_point),
                   .zero_point = levels.zero_point});
  for (std::int64_t i = 0; i < count; ++i) {
    check_element(dst, i, expected_level(src[i], levels), trial);
  }
  dst.check_rest(1, trial);
}

void check_quantize_all(const QuantizeKernel& kernel, Trial& trial) {
  for (const Levels& levels : kLevels) {
    check_quantize(kernel, trial, levels, 65536,
                   [](std::int64_t i) { return half{static_cast<std::uint16_t>(i)}; });
    for (const std::int64_t count : kRaggedCounts) {
      check_quantize(kernel, trial, levels, count,
                     [&trial](std::int64_t) { return to_half(trial.random.uniform(-3, 3)); });
    }
  }
}

void check_dequantize(const DequantizeKernel& kernel, Trial& trial, const Levels& levels,
                      std::int64_t count) {
  trial.begin("count " + std::to_string(count) + ", scale " + text(levels.scale) + ", zero point " +
              std::to_string(levels.zero_point));
  const Guarded<std::int8_t> src(count);
  for (std::int64_t i = 0; i < count; ++i) src[i] = static_cast<std::int8_t>(i - 128);
  const Destination<half> dst(1, count, count);
  kernel.function({.src = src.data(),
                   .dst = dst.data(),
                   .count = count,
                   .scale = levels.scale,
                   .zero_point = levels.zero_point});
  for (std::int64_t i = 0; i < count; ++i) {
    const half expected = to_half(static_cast<float>(src[i] - levels.zero_point) * levels.scale);
    check_element(dst, i, expected, trial);
  }
  dst.check_rest(1, trial);
}

void check_dequantize_all(const DequantizeKernel& kernel, Trial& trial) {
  for (const Levels& levels : kLevels) {
    for (const std::int64_t count : kRaggedCounts) check_dequantize(kernel, trial, levels, count);
    check_dequantize(kernel, trial, levels, 256);
  }
}

Bench bench_quantize(const QuantizeKernel& kernel) {
  const auto src = random_halves(kBenchElements, 1);
  const auto dst = std::make_shared<AlignedVector<std::int8_t>>(src->size());
  return {.amount = kBenchElements, .unit = "elements", .run = [&kernel, src, dst] {
            kernel.function({.src = src->data(),
                             .dst = dst->data(),
                             .count = kBenchElements,
                             .inverse_scale = 127,
                             .lo = -128,
                             .hi = 127,
                             .zero_point = 0});
          }};
}

Bench bench_dequantize(const DequantizeKernel& kernel) {
  const auto src =
      std::make_shared<AlignedVector<std::int8_t>>(static_cast<std::size_t>(kBenchElements));
  const auto dst = random_halves(kBenchElements, 1);
  return {.amount = kBenchElements, .unit = "elements", .run = [&kernel, src, dst] {
            kernel.function({.src = src->data(),
                             .dst = dst->data(),
                             .count = kBenchElements,
                             .scale = 0.01F,
                             .zero_point = 0});
          }};
}

}  // namespace

void append_quantize(std::vector<Subject>& subjects) {
  append_rows(subjects, quantize_kernels(), check_quantize_all, bench_quantize);
  append_rows(subjects, dequantize_kernels(), check_dequantize_all, bench_dequantize);
}

}  // namespace qpp::check
