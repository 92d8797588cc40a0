// SPDX-License-Identifier: Apache-2.0
//
// Splitting into a dense and a sparse part, and joining them: every byte and entry. Products with a
// sparse matrix: within the rounding of fp16 sums.

#include <algorithm>
#include <cmath>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Bounds {
  std::int32_t lo;
  std::int32_t hi;
  std::int32_t qmin;
  std::int32_t qmax;
  float inverse_scale;
  std::int32_t zero_point;
};

const std::vector<Bounds> kBounds = {
    {-128 - kMaxResidual, 127 + kMaxResidual, -128, 127, 32, 3},
    {-128 - kMaxResidual, 127 + kMaxResidual, -128, 127, 0x1p16F, 3},
    {-128, 127 + kMaxResidual, -128, 127, 0.25F, -128},
    {-8 - kMaxResidual, 7 + kMaxResidual, -8, 7, 2, -2},
    {-2, 1, -2, 1, 1, 0},
    {-128, 400, -128, 127, 0x1.234p3F, -128},   // the inverse is a half
    {-300, 300, -128, 127, 0x1.23456p3F, 100},  // the inverse is not a half
    {140, 3000, -128, 127, 100, -128},          // all levels are clipped
    {-128 - kMaxResidual, 127 + kMaxResidual, -128, 127, 0x1p-14F, 0},
};

std::int16_t draw(Random& random, const Bounds& bounds, bool wide, std::int16_t /*type*/) {
  const std::int32_t bound = wide ? 32767 : bounds.qmax + 3;
  return static_cast<std::int16_t>(random.integer(-bound, bound));
}
half draw(Random& random, const Bounds& bounds, bool wide, half /*type*/) {
  if (wide && random.bits() % 32 == 0) return to_half(random.bits() % 2 == 0 ? NAN : INFINITY);
  const float steps = random.normal() * (wide ? 4000.0F : static_cast<float>(bounds.qmax) / 2);
  return to_half((steps - static_cast<float>(bounds.zero_point)) / bounds.inverse_scale);
}

/// The expected list of the row.
struct Expected {
  std::vector<std::int8_t> bytes;
  std::vector<std::uint32_t> begins = {0};
  std::vector<std::uint32_t> positions;
  std::vector<float> residuals;
  std::uint32_t dropped = 0;
  std::uint32_t saturated = 0;
};

template <typename Src>
void check_sparsify(const SparsifyKernel& kernel, Trial& trial, const Bounds& bounds,
                    std::int64_t channels, std::int64_t width, std::int64_t capacity, bool wide) {
  trial.begin(std::to_string(channels) + " channels, " + std::to_string(width) +
              " pixels, room for " + std::to_string(capacity) + (wide ? ", wide" : "") +
              ", levels " + std::to_string(bounds.lo) + " to " + std::to_string(bounds.hi));
  const Guarded<Src> src(width * channels);
  const Destination<std::int8_t> dst(width, channels, channels);
  const Guarded<std::uint32_t> begins(width + 1);
  const Guarded<std::uint32_t> positions(capacity);
  const Guarded<half> residuals(capacity);
  std::uint32_t dropped = 0;
  for (std::int64_t i = 0; i < src.count(); ++i) src[i] = draw(trial.random, bounds, wide, Src{});
  SparsifyArgs args{
      .channels = channels,
      .lo = bounds.lo,
      .hi = bounds.hi,
      .saturation_lo = bounds.lo < bounds.qmin ? std::max(bounds.lo, bounds.qmin - 500) : INT32_MIN,
      .saturation_hi = bounds.hi > bounds.qmax ? std::min(bounds.hi, bounds.qmax + 500) : INT32_MAX,
      .qmin = bounds.qmin,
      .qmax = bounds.qmax,
      .inverse_scale = bounds.inverse_scale,
      .zero_point = bounds.zero_point,
      .row = {.begins = begins.data(),
              .positions = positions.data(),
              .residuals = residuals.data(),
              .capacity = capacity,
              .dropped = &dropped}};
  Expected expected;
  for (std::int64_t i = 0; i < src.count(); ++i) {
    const std::int32_t level = sparsify_level(args, src[i]);
    const std::int32_t dense = std::clamp(level, bounds.qmin, bounds.qmax);
    expected.bytes.push_back(static_cast<std::int8_t>(dense));
    const bool full = static_cast<std::int64_t>(expected.positions.size()) == capacity;
    if (level != dense && full) ++expected.dropped;
    if (level <= args.saturation_lo || level >= args.saturation_hi) ++expected.saturated;
    if (level != dense && !full) {
      expected.positions.push_back(static_cast<std::uint32_t>(i));
      expected.residuals.push_back(to_float(residual_of_steps(level - dense)));
    }
    if (i % channels == channels - 1) {
      expected.begins.push_back(static_cast<std::uint32_t>(expected.positions.size()));
    }
  }
  // In parts, as tiles come.
  std::uint32_t saturated = 0;
  for (std::int64_t x = 0; x < width; x += args.pixels) {
    args.x = x;
    args.pixels = std::min<std::int64_t>(trial.random.integer(1, 9), width - x);
    args.src = src.data() + x * channels;
    args.dst = dst.data() + x * channels;
    saturated += kernel.function(args);
  }
  if (saturated != expected.saturated) {
    trial.fail(std::to_string(saturated) + " elements are out of range, expected " +
               std::to_string(expected.saturated));
  }
  for (std::int64_t i = 0; i < src.count(); ++i) {
    if (dst.data()[i] != expected.bytes[static_cast<std::size_t>(i)]) {
      trial.fail("element " + std::to_string(i) + " is " + text(dst.data()[i]) + ", expected " +
                 text(expected.bytes[static_cast<std::size_t>(i)]));
    }
  }
  dst.check_rest(width, trial);
  if (dropped != expected.dropped) {
    trial.fail(std::to_string(dropped) + " outliers were dropped, expected " +
               std::to_string(expected.dropped));
  }
  if (!std::equal(expected.begins.begin(), expected.begins.end(), begins.data())) {
    trial.fail("the pixels' entries begin elsewhere");
    return;
  }
  for (std::size_t i = 0; i < expected.positions.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    if (positions[at] != expected.positions[i] ||
        to_float(residuals[at]) != expected.residuals[i]) {
      trial.fail("entry " + std::to_string(i) + " is " + text(residuals[at]) + " at " +
                 std::to_string(positions[at]) + ", expected " + text(expected.residuals[i]) +
                 " at " + std::to_string(expected.positions[i]));
    }
  }
  if (!expected.positions.empty()) trial.note("outliers");
  if (dropped > 0) trial.note("dropped");
}

void check_sparsify_all(const SparsifyKernel& kernel, Trial& trial) {
  for (const Bounds& bounds : kBounds) {
    for (const std::int64_t channels : {8, 24, 64, 72, 192}) {
      for (const bool wide : {false, true}) {
        const std::int64_t width = trial.random.integer(1, 30);
        // Sometimes outliers exceed the capacity.
        const std::int64_t capacity =
            wide && trial.random.bits() % 4 == 0 ? width * channels / 4 : width * channels;
        if (kernel.src == DType::f16) {
          check_sparsify<half>(kernel, trial, bounds, channels, width, capacity, wide);
        } else {
          check_sparsify<std::int16_t>(kernel, trial, bounds, channels, width, capacity, wide);
        }
      }
    }
  }
  if (trial.notes("outliers") < 20) trial.fail("there were hardly any outliers");
  if (trial.notes("dropped") == 0) trial.fail("there was always room");
}

void check_densify(const DensifyKernel& kernel, Trial& trial, std::int64_t channels,
                   std::int64_t width, std::int32_t zero_point, std::uint32_t density,
                   float steps_per_unit) {
  const auto max_steps = static_cast<std::int64_t>(std::min(1e8F, kMaxHalf * steps_per_unit));
  trial.begin(std::to_string(channels) + " channels, " + std::to_string(width) +
              " pixels, zero point " + std::to_string(zero_point) + ", one outlier in " +
              std::to_string(density) + ", units of " + std::to_string(steps_per_unit));
  const Guarded<std::int8_t> src(width * channels);
  const Destination<half> dst(width, channels, channels);
  const Guarded<std::uint32_t> begins(width + 1);
  std::vector<std::uint32_t> listed;
  std::vector<half> steps;
  std::vector<float> expected;
  begins[0] = 0;
  for (std::int64_t i = 0; i < src.count(); ++i) {
    src[i] = static_cast<std::int8_t>(trial.random.integer(-128, 127));
    std::int64_t residual = 0;
    if (trial.random.bits() % density == 0) {
      const std::int64_t most = trial.random.bits() % 2 == 0 ? 4000 : max_steps - 255;
      residual = trial.random.integer(-most, most);
      listed.push_back(static_cast<std::uint32_t>(i));
      steps.push_back(residual_of_steps(static_cast<std::int32_t>(residual)));
      residual = steps_of_residual(steps.back());
    }
    expected.push_back(
        to_float(to_half(static_cast<float>(src[i] - zero_point + residual) / steps_per_unit)));
    if (i % channels == channels - 1) {
      begins[i / channels + 1] = static_cast<std::uint32_t>(listed.size());
    }
  }
  const Guarded<std::uint32_t> positions(static_cast<std::int64_t>(listed.size()));
  const Guarded<half> residuals(positions.count());
  std::copy(listed.begin(), listed.end(), positions.data());
  std::copy(steps.begin(), steps.end(), residuals.data());
  for (std::int64_t x = 0; x < width;) {
    const std::int64_t pixels = std::min<std::int64_t>(trial.random.integer(1, 9), width - x);
    kernel.function({.src = src.data() + x * channels,
                     .dst = dst.data() + x * channels,
                     .pixels = pixels,
                     .channels = channels,
                     .zero_point = zero_point,
                     .row = {.begins = begins.data(),
                             .positions = positions.data(),
                             .residuals = residuals.data(),
                             .capacity = positions.count()},
                     .x = x,
                     .steps_per_unit = steps_per_unit});
    x += pixels;
  }
  for (std::int64_t i = 0; i < src.count(); ++i) {
    const float got = to_float(dst.data()[i]);
    if (got != expected[static_cast<std::size_t>(i)]) {
      trial.fail("element " + std::to_string(i) + " is " + std::to_string(got) + ", expected " +
                 std::to_string(expected[static_cast<std::size_t>(i)]));
    }
  }
  dst.check_rest(width, trial);
}

void check_densify_all(const DensifyKernel& kernel, Trial& trial) {
  for (const std::int64_t channels : {8, 24, 64, 72}) {
    for (const std::int32_t zero_point : {-128, 3, 127}) {
      for (const std::uint32_t density : {2U, 100U}) {
        for (const float unit : {16.0F, 16.0F * 8192}) {
          check_densify(kernel, trial, channels, trial.random.integer(1, 30), zero_point, density,
                        unit);
        }
      }
    }
  }
}

/// Residuals, of which some are large.
half draw_residual(Random& random, bool large) {
  const float steps = random.normal() * (large ? 3000.0F : 40.0F);
  const bool largest = large && random.bits() % 64 == 0;
  return residual_of_steps(static_cast<std::int32_t>(steps) * (largest ? 16384 : 1));
}

/// A row of sources for spmm: at most `per_column` outliers in each column.
struct SparseRow {
  SparseRow(Random& random, std::int64_t width, std::int64_t channels, std::int64_t per_column,
            bool large)
      : begins(width + 1),
        positions(width * per_column + kOutlierSlack),
        residuals(positions.count()) {
    std::uint32_t count = 0;
    for (std::int64_t x = 0; x < width; ++x) {
      begins[x] = count;
      const std::int64_t entries = random.bits() % 3 == 0 ? 0 : random.integer(0, per_column);
      for (std::int64_t i = 0; i < entries; ++i, ++count) {
        positions[count] =
            static_cast<std::uint32_t>(x * channels + random.integer(0, channels - 1));
        residuals[count] = draw_residual(random, large);
      }
    }
    begins[width] = count;
    for (std::int64_t i = count; i < residuals.count(); ++i) residuals[i] = to_half(NAN);
  }
  [[nodiscard]] OutlierRow view() const {
    return {.begins = begins.data(),
            .positions = positions.data(),
            .residuals = residuals.data(),
            .capacity = positions.count()};
  }

  Guarded<std::uint32_t> begins;
  Guarded<std::uint32_t> positions;
  Guarded<half> residuals;
};

struct SpmmCase {
  std::int64_t taps;
  std::int64_t tap_step;
  std::int64_t step;
};

void check_spmm(const SpmmKernel& kernel, Trial& trial, const SpmmCase& test, std::int64_t filters,
                std::int64_t per_column, bool large) {
  const std::int64_t pixels = trial.random.integer(1, 8);
  const std::int64_t row_count = trial.random.integer(0, 3);
  trial.begin(std::to_string(test.taps) + " taps, each " + std::to_string(test.tap_step) +
              " from the last, step " + std::to_string(test.step) + ", " +
              std::to_string(row_count) + " rows, " + std::to_string(pixels) + " pixels, " +
              std::to_string(filters) + " filters, up to " + std::to_string(per_column) +
              " outliers" + (large ? ", large" : ""));
  constexpr std::int64_t kChannels = 16;
  const std::int64_t width = trial.random.integer(1, 20);
  const Guarded<half> weights(std::max<std::int64_t>(row_count, 1) * test.taps * kChannels *
                              filters);
  for (std::int64_t i = 0; i < weights.count(); ++i) {
    weights[i] = to_half(static_cast<float>(trial.random.integer(-127, 127)) * 256);
  }
  std::vector<std::unique_ptr<SparseRow>> sources;
  std::vector<SpmmRow> rows;
  for (std::int64_t r = 0; r < row_count; ++r) {
    sources.push_back(
        std::make_unique<SparseRow>(trial.random, width, kChannels, per_column, large));
    rows.push_back({.outliers = sources.back()->view(),
                    .weights = weights.data() + r * test.taps * kChannels * filters});
  }
  const Destination<half> sums(pixels, filters, filters);
  const std::int64_t first = trial.random.integer(-3, width);
  const bool fits = kernel.function({.rows = rows.data(),
                                     .row_count = row_count,
                                     .width = width,
                                     .first = first,
                                     .step = test.step,
                                     .taps = test.taps,
                                     .tap_step = test.tap_step,
                                     .channels = kChannels,
                                     .filters = filters,
                                     .pixels = pixels,
                                     .sums = sums.data()});
  bool may_overflow = false;
  bool overflows = false;
  for (std::int64_t p = 0; p < pixels; ++p) {
    for (std::int64_t f = 0; f < filters; ++f) {
      double sum = 0;
      double magnitude = 0;
      std::int64_t count = 0;
      for (const SpmmRow& row : rows) {
        for (std::uint32_t i = 0; i < row.outliers.begins[width]; ++i) {
          const std::int64_t x = row.outliers.positions[i] / kChannels;
          const std::int64_t channel = row.outliers.positions[i] % kChannels;
          const std::int64_t offset = x - first - p * test.step;
          const std::int64_t tap = offset / test.tap_step;
          if (offset < 0 || offset % test.tap_step != 0 || tap >= test.taps) continue;
          const double product =
              static_cast<double>(to_float(row.outliers.residuals[i])) *
              static_cast<double>(to_float(row.weights[(tap * kChannels + channel) * filters + f]));
          sum += product;
          magnitude += std::abs(product);
          ++count;
        }
      }
      const double got = static_cast<double>(to_float(sums.at(p, f)));
      // Each of the additions errs by half a unit in the last place of a partial sum.
      const double bound = static_cast<double>(count + 1) * 0x1p-11 * magnitude + 0x1p-24;
      const double limit = static_cast<double>(kMaxHalf);
      may_overflow |= magnitude > 0.99 * limit;
      overflows |= std::abs(sum) - bound > limit;
      if (fits && !(std::abs(got - sum) <= bound)) {
        trial.fail("pixel " + std::to_string(p) + ", filter " + std::to_string(f) + " is " +
                   std::to_string(got) + ", expected " + std::to_string(sum));
      }
    }
  }
  if (fits ? overflows : !may_overflow)
    trial.fail("its result does not match whether the sums fit");
  if (overflows) trial.note("overflow");
  sums.check_rest(pixels, trial);
}

void check_spmm_all(const SpmmKernel& kernel, Trial& trial) {
  constexpr SpmmCase kCases[] = {{.taps = 3, .tap_step = 1, .step = 1},
                                 {.taps = 3, .tap_step = 2, .step = 1},
                                 {.taps = 1, .tap_step = 1, .step = 2},
                                 {.taps = 5, .tap_step = 1, .step = 2}};
  for (const std::int64_t filters : {8, 16, 24, 64, 72, 136}) {
    for (const SpmmCase& test : kCases) {
      for (const std::int64_t per_column : {1, 3, 12}) {
        for (const bool large : {false, true}) {
          check_spmm(kernel, trial, test, filters, per_column, large);
        }
      }
    }
  }
  if (trial.notes("overflow") == 0) trial.fail("no sum was as large as a half");
}

/// Splits rows of 56 pixels, of which 1 % are outliers.
Bench bench_sparsify(const SparsifyKernel& kernel) {
  const auto src = std::make_shared<AlignedVector<std::byte>>(
      static_cast<std::size_t>(kBenchPixels * kBenchChannels) * size_of(kernel.src));
  Random random(1);
  for (std::int64_t i = 0; i < kBenchPixels * kBenchChannels; ++i) {
    const std::int64_t level = random.integer(-128, random.bits() % 100 == 0 ? 400 : 126);
    if (kernel.src == DType::f16) {
      reinterpret_cast<half*>(src->data())[i] = to_half(static_cast<float>(level));
    } else {
      reinterpret_cast<std::int16_t*>(src->data())[i] = static_cast<std::int16_t>(level);
    }
  }
  const auto dst = std::make_shared<AlignedVector<std::byte>>(kBenchPixels * kBenchChannels);
  const auto list =
      std::make_shared<AlignedVector<std::byte>>(Outliers::bytes(1, kBenchPixels, kBenchChannels));
  return {
      .amount = kBenchPixels * kBenchChannels,
      .unit = "elements",
      .run = [&kernel, src, dst, list] {
        kernel.function({.src = src->data(),
                         .dst = reinterpret_cast<std::int8_t*>(dst->data()),
                         .pixels = kBenchPixels,
                         .channels = kBenchChannels,
                         .lo = -128,
                         .hi = 127 + kMaxResidual,
                         .row = Outliers(list->data(), 1, kBenchPixels, kBenchChannels).row(0)});
      }};
}

/// Rows of 56 pixels, of which 1 % are outliers.
Bench bench_densify(const DensifyKernel& kernel) {
  const auto src = std::make_shared<AlignedVector<std::byte>>(kBenchPixels * kBenchChannels);
  const auto dst = std::make_shared<AlignedVector<half>>(kBenchPixels * kBenchChannels);
  const auto list =
      std::make_shared<AlignedVector<std::byte>>(Outliers::bytes(1, kBenchPixels, kBenchChannels));
  const OutlierRow row = Outliers(list->data(), 1, kBenchPixels, kBenchChannels).row(0);
  Random random(1);
  for (std::int64_t x = 0; x < kBenchPixels; ++x) {
    OutlierAppender appender(row, x);
    for (std::int64_t c = 0; c < kBenchChannels; ++c) {
      appender.append(x * kBenchChannels + c, random.bits() % 100 == 0 ? 50 : 0);
    }
    appender.end_pixel(x);
  }
  return {
      .amount = kBenchPixels * kBenchChannels, .unit = "elements", .run = [=, &kernel] {
        kernel.function({.src = reinterpret_cast<const std::int8_t*>(src->data()),
                         .dst = dst->data(),
                         .pixels = kBenchPixels,
                         .channels = kBenchChannels,
                         .row = Outliers(list->data(), 1, kBenchPixels, kBenchChannels).row(0)});
      }};
}

/// Tiles of 8 pixels, 3x3 taps of 64 channels, of which 1 % are outliers.
Bench bench_spmm(const SpmmKernel& kernel) {
  constexpr std::int64_t kRows = 3;
  constexpr std::int64_t kWidth = 10;
  struct Data {
    std::shared_ptr<AlignedVector<half>> weights =
        random_halves(kRows * 3 * kBenchChannels * kBenchChannels, 2);
    std::vector<AlignedVector<std::byte>> lists;
    std::vector<SpmmRow> rows;
    std::vector<half> sums = std::vector<half>(8 * kBenchChannels);
  };
  const auto data = std::make_shared<Data>();
  Random random(3);
  for (std::int64_t r = 0; r < kRows; ++r) {
    data->lists.emplace_back(Outliers::bytes(1, kWidth, kBenchChannels));
    const OutlierRow row = Outliers(data->lists.back().data(), 1, kWidth, kBenchChannels).row(0);
    for (std::int64_t x = 0; x < kWidth; ++x) {
      OutlierAppender appender(row, x);
      for (std::int64_t c = 0; c < kBenchChannels; ++c) {
        appender.append(x * kBenchChannels + c, random.bits() % 100 == 0 ? 50 : 0);
      }
      appender.end_pixel(x);
    }
    data->rows.push_back(
        {.outliers = row,
         .weights = data->weights->data() + r * 3 * kBenchChannels * kBenchChannels});
  }
  return {.amount = 8 * kBenchChannels, .unit = "sums", .run = [&kernel, data] {
            kernel.function({.rows = data->rows.data(),
                             .row_count = kRows,
                             .width = kWidth,
                             .taps = 3,
                             .channels = kBenchChannels,
                             .filters = kBenchChannels,
                             .pixels = 8,
                             .sums = data->sums.data()});
          }};
}

}  // namespace

void append_sparse(std::vector<Subject>& subjects) {
  append_rows(subjects, sparsify_kernels(), check_sparsify_all, bench_sparsify);
  append_rows(subjects, densify_kernels(), check_densify_all, bench_densify);
  append_rows(subjects, spmm_kernels(), check_spmm_all, bench_spmm);
}

}  // namespace qpp::check
