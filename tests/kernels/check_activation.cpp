// SPDX-License-Identifier: Apache-2.0
//
// Functions of every half there is: as the reference to the bit, and near the true value.

#include <cmath>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Named {
  Function function;
  const char* name;
};

constexpr std::array<Named, 7> kFunctions = {{{Function::clamp, "clamp"},
                                              {Function::tanh, "tanh"},
                                              {Function::sigmoid, "sigmoid"},
                                              {Function::silu, "silu"},
                                              {Function::hardsigmoid, "hardsigmoid"},
                                              {Function::hardswish, "hardswish"},
                                              {Function::prelu, "prelu"}}};

double exact(const ActivationArgs& args, double x, float slope) {
  switch (args.function) {
    case Function::clamp:
      return std::fmin(std::fmax(x, args.lo), args.hi);
    case Function::tanh:
      return std::tanh(x);
    case Function::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Function::silu:
      return x / (1 + std::exp(-x));
    case Function::hardsigmoid:
      return std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case Function::hardswish:
      return x * std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case Function::prelu:
      return x >= 0 ? x : x * slope;
  }
  return x;
}

void check_case(const ActivationKernel& kernel, Trial& trial, const Named& named,
                std::int64_t pixels, std::int64_t channels) {
  trial.begin(std::string(named.name) + ", " + std::to_string(pixels) + " pixels, " +
              std::to_string(channels) + " channels");
  const std::int64_t count = pixels * channels;
  const Guarded<half> src(count);
  const Guarded<float> slopes(channels);
  for (std::int64_t i = 0; i < count; ++i)
    src[i] = half{static_cast<std::uint16_t>(count < 65536 ? trial.random.bits() : i)};
  for (std::int64_t c = 0; c < channels; ++c) slopes[c] = trial.random.uniform(-1, 1);
  const Destination<half> dst(1, count, count);
  const Guarded<half> expected(count);
  ActivationArgs args{.src = src.data(),
                      .dst = expected.data(),
                      .pixels = pixels,
                      .channels = channels,
                      .function = named.function,
                      .lo = -0.5F,
                      .hi = 6,
                      .slopes = slopes.data()};
  activation_kernels()[0].function(args);
  args.dst = dst.data();
  kernel.function(args);
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = to_float(src[i]);
    if (!same(dst.at(0, i), expected[i])) {
      trial.fail("of " + text(src[i]) + " is " + text(dst.at(0, i)) + ", expected " +
                 text(expected[i]));
    }
    const double value = exact(args, x, slopes[i % channels]);
    const double error = std::abs(to_float(dst.at(0, i)) - value);
    if (std::isfinite(x) && error > 0.0006 * std::abs(value) + 2e-6 * (1 + std::abs(x))) {
      trial.fail("of " + text(src[i]) + " is " + text(dst.at(0, i)) + ", far from " +
                 text(static_cast<float>(value)));
    }
  }
  dst.check_rest(1, trial);
}

void check(const ActivationKernel& kernel, Trial& trial) {
  for (const Named& named : kFunctions) {
    check_case(kernel, trial, named, 1, 8);
    check_case(kernel, trial, named, 7, 24);
    check_case(kernel, trial, named, 4096, 16);
  }
}

/// tanh: of the functions that need polynomials, the one that networks here use.
Bench bench(const ActivationKernel& kernel) {
  constexpr std::int64_t kPixels = 56 * 56;
  constexpr std::int64_t kChannels = 64;
  const auto src = random_halves(kPixels * kChannels, 1);
  const auto dst = random_halves(kPixels * kChannels, 2);
  return {.amount = kPixels * kChannels, .unit = "elements", .run = [&kernel, src, dst] {
            kernel.function({.src = src->data(),
                             .dst = dst->data(),
                             .pixels = kPixels,
                             .channels = kChannels,
                             .function = Function::tanh});
          }};
}

}  // namespace

void append_activation(std::vector<Subject>& subjects) {
  for (const ActivationKernel& kernel : activation_kernels()) {
    subjects.push_back({.info = kernel.info,
                        .check = [&kernel](Trial& trial) { check(kernel, trial); },
                        .bench = [&kernel] { return bench(kernel); }});
  }
}

}  // namespace qpp::check
