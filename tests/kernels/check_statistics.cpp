// SPDX-License-Identifier: Apache-2.0
//
// Min/max, mean, deviation and quantile, exactly, against sorted and summed copies.

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

/// Elements of a kind, in the layout of a tensor. The padding between pixels is NaN, so that no
/// statistic can take it in unnoticed.
class Elements {
 public:
  Elements(std::int64_t pixels, std::int64_t channels, std::int64_t stride,
           const std::function<float(std::int64_t)>& value)
      : memory_(pixels * stride) {
    std::fill_n(memory_.data(), memory_.count(), half{0x7e00});
    for (std::int64_t i = 0; i < pixels * channels; ++i) {
      const half element = to_half(value(i));
      memory_[i / channels * stride + i % channels] = element;
      values.push_back(to_float(element));
    }
    source = {.data = memory_.data(), .pixels = pixels, .channels = channels, .stride = stride};
  }

  StatisticsSource source;
  std::vector<float> values;  // in the order of memory

 private:
  Guarded<half> memory_;
};

struct Layout {
  std::int64_t pixels;
  std::int64_t channels;
  std::int64_t stride;
};

const std::vector<Layout> kLayouts = {
    {1, 1, 8},   {1, 8, 8},    {3, 1, 8},     {17, 3, 8},    {5, 12, 16},   {100, 18, 24},
    {9, 64, 64}, {65, 40, 40}, {513, 1, 8},   {700, 7, 24},  {110, 72, 72}, {1000, 5, 8},
    {33, 8, 16}, {4096, 2, 8}, {257, 64, 64}, {300, 33, 40}, {1037, 9, 16},
};

std::string describe(const Layout& layout, const std::string& kind) {
  return std::to_string(layout.pixels) + " pixels x " + std::to_string(layout.channels) +
         " channels, stride " + std::to_string(layout.stride) + ", " + kind;
}

/// Named sequences of elements, each made from a trial's random numbers.
struct Kind {
  const char* name;
  std::function<float(Random&, std::int64_t i, std::int64_t count)> value;
};

const std::vector<Kind> kKinds = {
    {"normal", [](Random& random, auto, auto) { return random.normal(); }},
    {"after relu", [](Random& random, auto, auto) { return std::max(random.normal(), 0.0F); }},
    {"after relu6",
     [](Random& random, auto, auto) { return std::clamp(random.normal() * 4, 0.0F, 6.0F); }},
    {"all equal", [](Random&, auto, auto) { return -2.5F; }},
    {"all zero", [](Random&, auto, auto) { return 0.0F; }},
    {"two values",
     [](Random& random, auto, auto) { return random.bits() % 50 == 0 ? 3.0F : -1.0F; }},
    {"few values",
     [](Random& random, auto, auto) { return static_cast<float>(random.integer(-3, 3)); }},
    {"sorted",
     [](Random&, std::int64_t i, std::int64_t count) {
       return static_cast<float>(i) / static_cast<float>(count);
     }},
    {"reversed",
     [](Random&, std::int64_t i, std::int64_t count) {
       return -static_cast<float>(i) / static_cast<float>(count);
     }},
    {"subnormal", [](Random& random, auto,
                     auto) { return static_cast<float>(random.integer(-900, 900)) * 0x1p-24F; }},
    {"zeros of both signs",
     [](Random& random, auto, auto) { return random.bits() % 2 == 0 ? -0.0F : 0.0F; }},
    {"extreme",
     [](Random& random, auto, auto) { return random.bits() % 2 == 0 ? -65504.0F : 65504.0F; }},
    {"all positive", [](Random& random, auto, auto) { return random.uniform(3, 5); }},
    {"all negative", [](Random& random, auto, auto) { return random.uniform(-5, -3); }},
    {"few outliers",
     [](Random& random, auto, auto) {
       return random.bits() % 1000 == 0 ? random.uniform(-60, 60) : random.uniform(0, 1);
     }},
};

template <typename Check>
void for_all_elements(Trial& trial, const Check& check) {
  for (const Layout& layout : kLayouts) {
    for (const Kind& kind : kKinds) {
      trial.begin(describe(layout, kind.name));
      const std::int64_t count = layout.pixels * layout.channels;
      const Elements elements(layout.pixels, layout.channels, layout.stride,
                              [&](std::int64_t i) { return kind.value(trial.random, i, count); });
      check(elements);
    }
  }
}

void expect(Trial& trial, const std::string& what, float got, float expected) {
  if (!same(got, expected)) trial.fail(what + " is " + text(got) + ", expected " + text(expected));
}

void check_minmax(const MinMaxKernel& kernel, Trial& trial) {
  for_all_elements(trial, [&](const Elements& elements) {
    Range range{.lo = 77, .hi = 77};
    kernel.function({.src = elements.source, .range = &range});
    const auto [lo, hi] = std::minmax_element(elements.values.begin(), elements.values.end());
    expect(trial, "lo", range.lo, *lo);
    expect(trial, "hi", range.hi, *hi);
  });
  for (const Layout& layout : kLayouts) {
    for (const float special : {NAN, INFINITY, -INFINITY}) {
      trial.begin(describe(layout, "with " + text(special)));
      const std::int64_t at = trial.random.integer(0, layout.pixels * layout.channels - 1);
      const Elements elements(layout.pixels, layout.channels, layout.stride,
                              [&](std::int64_t i) { return i == at ? special : 1.0F; });
      Range range;
      kernel.function({.src = elements.source, .range = &range});
      expect(trial, "lo", range.lo,
             std::isnan(special)                    ? NAN
             : layout.pixels * layout.channels == 1 ? special
                                                    : std::min(special, 1.0F));
      expect(trial, "hi", range.hi,
             std::isnan(special)                    ? NAN
             : layout.pixels * layout.channels == 1 ? special
                                                    : std::max(special, 1.0F));
    }
  }
}

/// The steps that statistics.h fixes, lane by lane.
float expected_mean(const Elements& elements) {
  const StatisticsSource& src = elements.source;
  const std::int64_t vectors_per_pixel = round_up<std::int64_t>(src.channels, 8) / 8;
  const std::int64_t vectors = src.pixels * vectors_per_pixel;
  double sum = 0;
  for (std::int64_t lane = 0; lane < 8; ++lane) {
    const auto value = [&](std::int64_t v) {
      const std::int64_t channel = v % vectors_per_pixel * 8 + lane;
      if (v >= vectors || channel >= src.channels) return 0.0F;
      return elements
          .values[static_cast<std::size_t>(v / vectors_per_pixel * src.channels + channel)];
    };
    double total = 0;
    float block = 0;
    for (std::int64_t pair = 0; 2 * pair < vectors; ++pair) {
      const float first = to_float(to_half(value(2 * pair) / 2));
      block += to_float(to_half(first + value(2 * pair + 1) / 2));
      if (pair % kMeanBlock != kMeanBlock - 1) continue;
      total += static_cast<double>(block);
      block = 0;
    }
    sum += total + static_cast<double>(block);
  }
  return static_cast<float>(2 * sum / static_cast<double>(elements.values.size()));
}

void check_mean(const MeanKernel& kernel, Trial& trial) {
  for_all_elements(trial, [&](const Elements& elements) {
    float mean = 77;
    kernel.function({.src = elements.source, .mean = &mean});
    expect(trial, "mean", mean, expected_mean(elements));
    double sum = 0;
    double magnitude = 0;
    for (const float value : elements.values) {
      sum += static_cast<double>(value);
      magnitude += std::abs(static_cast<double>(value));
    }
    // Rounded to fp16, of which subnormals are steps of 2^-24, when halved and when averaged.
    const auto count = static_cast<double>(elements.values.size());
    if (std::abs(mean - sum / count) > 0x1p-11 * magnitude / count + 0x1p-24) {
      trial.fail("mean is " + text(mean) + ", in double " + std::to_string(sum / count));
    }
  });
}

/// The steps that statistics.h fixes, lane by lane.
float expected_deviation(const Elements& elements) {
  const std::int64_t channels = elements.source.channels;
  const auto sum = [&](const auto& term) {
    double total = 0;
    for (std::int64_t lane = 0; lane < 8; ++lane) {
      double of_lane = 0;
      for (std::size_t i = 0; i < elements.values.size(); ++i) {
        if (static_cast<std::int64_t>(i) % channels % 8 == lane)
          of_lane += term(static_cast<double>(elements.values[i]));
      }
      total += of_lane;
    }
    return total;
  };
  const auto count = static_cast<double>(elements.values.size());
  const double mean = sum([](double x) { return x; }) / count;
  const double squares = sum([mean](double x) { return (x - mean) * (x - mean); });
  return static_cast<float>(std::sqrt(squares / count));
}

void check_deviation(const DeviationKernel& kernel, Trial& trial) {
  for_all_elements(trial, [&](const Elements& elements) {
    float deviation = 77;
    kernel.function({.src = elements.source, .deviation = &deviation});
    expect(trial, "deviation", deviation, expected_deviation(elements));
  });
}

void check_ranks(const QuantileKernel& kernel, Trial& trial, const Elements& elements,
                 const std::vector<std::int64_t>& ranks) {
  const auto count = static_cast<std::int64_t>(elements.values.size());
  std::vector<float> sorted = elements.values;
  std::sort(sorted.begin(), sorted.end());
  std::vector<float> values(ranks.size(), 77);
  const Guarded<std::byte> scratch(
      static_cast<std::int64_t>(round_up(quantile_scratch_bytes(count), kAlignment)));
  kernel.function({.src = elements.source,
                   .ranks = ranks.data(),
                   .rank_count = static_cast<std::int64_t>(ranks.size()),
                   .values = values.data(),
                   .scratch = scratch.data()});
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    expect(trial, "rank " + std::to_string(ranks[i]), values[i],
           sorted[static_cast<std::size_t>(ranks[i])]);
  }
}

void check_quantile(const QuantileKernel& kernel, Trial& trial) {
  for_all_elements(trial, [&](const Elements& elements) {
    const auto count = static_cast<std::int64_t>(elements.values.size());
    const auto share = [count](double alpha) {
      return static_cast<std::int64_t>(alpha * static_cast<double>(count - 1));
    };
    check_ranks(kernel, trial, elements, {0, count - 1});
    check_ranks(kernel, trial, elements, {share(0.99), share(0.999), share(0.9998)});
    check_ranks(kernel, trial, elements, {share(0.0003), share(0.9997)});
    check_ranks(
        kernel, trial, elements,
        {share(0.98), share(0.02), share(0.5), 0, count - 1, share(0.001), share(0.9), share(0.3)});
    check_ranks(kernel, trial, elements, {trial.random.integer(0, count - 1)});
  });
  // A sample that is all outliers, or none, whatever its stride: its bracket misses the wanted
  // element.
  std::vector<std::int64_t> periods(23);
  std::iota(periods.begin(), periods.end(), 2);
  for (std::int64_t groups = 4; groups <= 40; ++groups) periods.push_back(8 * groups);
  for (const std::int64_t period : periods) {
    for (const float outlier : {-100.0F, 100.0F}) {
      trial.begin(text(outlier) + " every " + std::to_string(period) + " elements");
      const std::int64_t count = 16384;
      const Elements elements(count / 16, 16, 16, [&](std::int64_t i) {
        return (i % period == 0 ? outlier : 0.0F) + trial.random.uniform(0, 1);
      });
      check_ranks(kernel, trial, elements, {count - 2000, count - 1});
      check_ranks(kernel, trial, elements, {0, 2000});
      check_ranks(kernel, trial, elements, {count / period + 50, count - count / period - 50});
    }
  }
}

Bench bench_statistics(const std::function<void(const StatisticsSource&)>& run) {
  const auto data = random_halves(kBenchElements, 1);
  const StatisticsSource source{.data = data->data(),
                                .pixels = kBenchPixels,
                                .channels = kBenchChannels,
                                .stride = kBenchChannels};
  return {
      .amount = kBenchElements, .unit = "elements", .run = [data, source, run] { run(source); }};
}

Bench bench_minmax(const MinMaxKernel& kernel) {
  return bench_statistics([&kernel](const StatisticsSource& source) {
    Range range;
    kernel.function({.src = source, .range = &range});
  });
}

Bench bench_mean(const MeanKernel& kernel) {
  return bench_statistics([&kernel](const StatisticsSource& source) {
    float mean = 0;
    kernel.function({.src = source, .mean = &mean});
  });
}

Bench bench_deviation(const DeviationKernel& kernel) {
  return bench_statistics([&kernel](const StatisticsSource& source) {
    float deviation = 0;
    kernel.function({.src = source, .deviation = &deviation});
  });
}

Bench bench_quantile(const QuantileKernel& kernel) {
  const auto scratch =
      std::make_shared<AlignedVector<std::byte>>(quantile_scratch_bytes(kBenchElements));
  return bench_statistics([&kernel, scratch](const StatisticsSource& source) {
    const std::int64_t rank = kBenchElements * 9997 / 10000;
    float value = 0;
    kernel.function({.src = source,
                     .ranks = &rank,
                     .rank_count = 1,
                     .values = &value,
                     .scratch = scratch->data()});
  });
}

}  // namespace

void append_statistics(std::vector<Subject>& subjects) {
  append_rows(subjects, minmax_kernels(), check_minmax, bench_minmax);
  append_rows(subjects, mean_kernels(), check_mean, bench_mean);
  append_rows(subjects, deviation_kernels(), check_deviation, bench_deviation);
  append_rows(subjects, quantile_kernels(), check_quantile, bench_quantile);
}

}  // namespace qpp::check
