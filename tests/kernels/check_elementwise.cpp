// SPDX-License-Identifier: Apache-2.0
//
// Sums and products of two arrays, exactly. The constants of int8 sums are themselves held against
// real arithmetic.

#include <cmath>
#include <type_traits>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

/// Every pair of int8, or random halves with special numbers among them.
void draw_pairs(Random& /*random*/, const Guarded<std::int8_t>& a, const Guarded<std::int8_t>& b) {
  for (std::int64_t i = 0; i < a.count(); ++i) {
    a[i] = static_cast<std::int8_t>(i * 37 + i / 256);
    b[i] = static_cast<std::int8_t>(i * 11 - i / 256);
  }
}

void draw_pairs(Random& random, const Guarded<half>& a, const Guarded<half>& b) {
  for (std::int64_t i = 0; i < a.count(); ++i) {
    a[i] = half{static_cast<std::uint16_t>(random.bits())};
    b[i] = i % 3 == 0 ? half{static_cast<std::uint16_t>(a[i].bits ^ 0x8000U)}
                      : half{static_cast<std::uint16_t>(random.bits())};
  }
}

template <typename Src, typename Dst>
void check_case(const std::vector<BinaryKernel>& family, const BinaryKernel& kernel, Trial& trial,
                BinaryArgs args, std::int64_t count, const std::string& what) {
  trial.begin("count " + std::to_string(count) + ", " + what);
  const Guarded<Src> a(count);
  const Guarded<Src> b(count);
  draw_pairs(trial.random, a, b);
  args.a = a.data();
  args.b = b.data();
  args.count = count;
  const Destination<Dst> dst(1, count, count);
  check_against_reference(family, kernel, args, dst, trial);
}

template <typename Src, typename Dst>
void check_all(const std::vector<BinaryKernel>& family, const BinaryKernel& kernel, Trial& trial) {
  std::vector<std::int64_t> counts(std::begin(kRaggedCounts), std::end(kRaggedCounts));
  counts.push_back(65536);
  for (const std::int64_t count : counts) {
    for (int i = 0; i < 12; ++i) {
      BinaryArgs args;
      const float zero = std::is_same_v<Dst, std::int8_t> ? -100.0F : -3.0F;
      args.lo = i % 3 == 0 ? 0.0F : zero;
      args.hi = i % 4 == 0 ? INFINITY : 90.0F;
      args.a_scale = std::is_same_v<Src, half> ? 1 : trial.random.uniform(0.001F, 0.1F);
      args.b_scale = i % 2 == 0 ? 1.0F : -1.0F;
      if (std::is_same_v<Src, std::int8_t>) {
        args.b_scale *= trial.random.uniform(0.001F, 0.1F);
        args.a_zero_point = static_cast<std::int32_t>(trial.random.integer(-128, 127));
        args.b_zero_point = static_cast<std::int32_t>(trial.random.integer(-128, 127));
        args.zero_point = static_cast<std::int32_t>(trial.random.integer(-28, 37));
        if (std::is_same_v<Dst, std::int8_t>) {
          args.lo = std::fmax(args.lo, static_cast<float>(-128 - args.zero_point));
          args.hi = std::fmin(args.hi, static_cast<float>(127 - args.zero_point));
        }
      }
      const float span = trial.random.uniform(0.02F, 4);
      const QParams a = choose_qparams(-trial.random.uniform(0, 1), trial.random.uniform(0, 1), 8);
      const QParams b = choose_qparams(-trial.random.uniform(0, 1), trial.random.uniform(0, 1), 8);
      const QParams dst = choose_qparams(-trial.random.uniform(0, span), span, i % 5 == 0 ? 4 : 8);
      const float sign = i % 7 == 6 ? 0.0F : (i % 2 == 0 ? 1.0F : -1.0F);
      args.levels = make_add_levels(a, b, dst, sign, i % 3 == 0 ? 0.0F : -INFINITY, INFINITY);
      check_case<Src, Dst>(family, kernel, trial, args, count,
                           "shift " + std::to_string(args.levels.shift));
    }
  }
}

void check(const std::vector<BinaryKernel>& family, const BinaryKernel& kernel, Trial& trial) {
  with_types(kernel, [&](auto src, auto dst) {
    check_all<decltype(src), decltype(dst)>(family, kernel, trial);
  });
}

/// add_levels() against the same sum in double.
void check_levels(Trial& trial) {
  for (int i = 0; i < 400; ++i) {
    const int bits = static_cast<int>(trial.random.integer(2, 8));
    const float span = std::exp2(trial.random.uniform(-7, 4));
    const QParams a = choose_qparams(-trial.random.uniform(0, 1), trial.random.uniform(0, 1), bits);
    const QParams b = choose_qparams(-trial.random.uniform(0, 1), trial.random.uniform(0, 1), bits);
    const QParams dst = choose_qparams(-trial.random.uniform(0, span), span, bits);
    const float sign = i % 2 == 0 ? 1 : -1;
    const float lo = i % 3 == 0 ? 0 : -INFINITY;
    const AddLevels levels = make_add_levels(a, b, dst, sign, lo, INFINITY);
    trial.begin("case " + std::to_string(i) + ", shift " + std::to_string(levels.shift));
    // An output far finer than its inputs holds their signs: results may be nearer to zero.
    const double ratio = (double{a.scale} + b.scale) / dst.scale;
    const bool exact = ratio < 50;
    for (int k = 0; k < 2000; ++k) {
      const auto x = static_cast<std::int8_t>(trial.random.integer(a.qmin, a.qmax));
      const auto y = static_cast<std::int8_t>(trial.random.integer(b.qmin, b.qmax));
      const double sum = static_cast<double>(x - a.zero_point) * a.scale +
                         double{sign} * (y - b.zero_point) * b.scale;
      const double level = std::fmax(sum, lo) / dst.scale + dst.zero_point;
      const double clamped = std::fmin(std::fmax(level, dst.qmin), dst.qmax);
      const double tolerance = exact ? 0.5 + 2.0 / (1 << levels.shift) : 4;
      const double nearer = exact ? clamped : dst.zero_point;
      const double result = add_levels(x, y, levels);
      const bool fits = result >= std::fmin(clamped, nearer) - tolerance &&
                        result <= std::fmax(clamped, nearer) + tolerance;
      if (!fits) {
        trial.fail("the sum of " + text(x) + " and " + text(y) + " is " +
                   text(add_levels(x, y, levels)) + ", expected " +
                   text(static_cast<float>(clamped)));
      }
    }
  }
}

/// Every int8, to scales from finer to coarser ones, against add_levels().
void check_requantize(const RequantizeKernel& kernel, Trial& trial) {
  for (const std::int64_t count : {8, 16, 24, 40, 72, 4096}) {
    for (int i = 0; i < 12; ++i) {
      const float span = std::exp2(trial.random.uniform(-7, 4));
      const QParams from = choose_qparams(-trial.random.uniform(0, 1), 1, 8);
      const QParams to = choose_qparams(-trial.random.uniform(0, span), span, i % 5 == 0 ? 4 : 8);
      const AddLevels levels = make_requantize_levels(from, to);
      trial.begin("count " + std::to_string(count) + ", shift " + std::to_string(levels.shift));
      const Guarded<std::int8_t> src(count);
      draw_pairs(trial.random, src, src);
      const Destination<std::int8_t> dst(1, count, count);
      kernel.function({.src = src.data(), .dst = dst.data(), .count = count, .levels = levels});
      for (std::int64_t k = 0; k < count; ++k) {
        check_element(dst, k, add_levels(src[k], src[k], levels), trial);
      }
      dst.check_rest(1, trial);
    }
  }
}

Bench bench_requantize(const RequantizeKernel& kernel) {
  const auto src =
      std::make_shared<AlignedVector<std::int8_t>>(static_cast<std::size_t>(kBenchElements));
  const auto dst = std::make_shared<AlignedVector<std::int8_t>>(*src);
  const RequantizeArgs args{
      .src = src->data(),
      .dst = dst->data(),
      .count = kBenchElements,
      .levels = make_requantize_levels(choose_qparams(-1, 1, 8), choose_qparams(-2, 1, 8))};
  return {.amount = kBenchElements, .unit = "elements", .run = [&kernel, src, dst, args] {
            kernel.function(args);
          }};
}

template <typename Src>
Bench bench_of(const BinaryKernel& kernel) {
  const auto a = std::make_shared<AlignedVector<Src>>(static_cast<std::size_t>(kBenchElements));
  const auto b = std::make_shared<AlignedVector<Src>>(*a);
  const auto dst = std::make_shared<AlignedVector<half>>(static_cast<std::size_t>(kBenchElements));
  BinaryArgs args;
  args.a = a->data();
  args.b = b->data();
  args.dst = dst->data();
  args.count = kBenchElements;
  const QParams row = choose_qparams(-1, 1, 8);
  args.levels = make_add_levels(row, row, row, 1, -INFINITY, INFINITY);
  return {.amount = kBenchElements, .unit = "elements", .run = [&kernel, a, b, dst, args] {
            kernel.function(args);
          }};
}

Bench bench(const BinaryKernel& kernel) {
  return kernel.src == DType::f16 ? bench_of<half>(kernel) : bench_of<std::int8_t>(kernel);
}

}  // namespace

void append_elementwise(std::vector<Subject>& subjects) {
  subjects.push_back({.info = {"add_levels", {}}, .check = check_levels, .bench = {}});
  for (const auto* family : {&add_kernels(), &mul_kernels()}) {
    append_rows(
        subjects, *family,
        [family](const BinaryKernel& kernel, Trial& trial) { check(*family, kernel, trial); },
        bench);
  }
  append_rows(subjects, requantize_kernels(), check_requantize, bench_requantize);
}

}  // namespace qpp::check
