// SPDX-License-Identifier: Apache-2.0
//
// Functions of every half there is: as the reference to the bit, and near the true value.

#include <cmath>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Function {
  UnaryActivation function;
  const char* name;
};
constexpr Function kFunctions[] = {
#define QPP_UNARY(name, ...) {UnaryActivation::name, #name},
#include "kernels/unary_activations.inc"
};

/// The numbers that functions are checked with.
std::array<float, 2> numbers_of(UnaryActivation function) {
  switch (function) {
    case UnaryActivation::celu:
      return {0.75F, 0};
    case UnaryActivation::clamp:
      return {-0.5F, 6};
    case UnaryActivation::elu:
      return {0.75F, 0};
    case UnaryActivation::pow:
      return {1.5F, 0};
    case UnaryActivation::softplus:
      return {1.5F, 4};
    default:
      return {};
  }
}

double exact(const ActivationArgs& args, double x, float slope) {
  const double a = args.a;
  const double b = args.b;
  switch (args.function) {
    case UnaryActivation::abs:
      return std::fabs(x);
    case UnaryActivation::celu:
      return x > 0 ? x : a * std::expm1(x / a);
    case UnaryActivation::clamp:
      return std::fmin(std::fmax(x, a), b);
    case UnaryActivation::elu:
      return x > 0 ? x : a * std::expm1(x);
    case UnaryActivation::erf:
      return std::erf(x);
    case UnaryActivation::exp:
      return std::exp(x);
    case UnaryActivation::gelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case UnaryActivation::gelu_tanh:
      return x / 2 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case UnaryActivation::hardsigmoid:
      return std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case UnaryActivation::hardswish:
      return x * std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case UnaryActivation::mish:
      return x * std::tanh(std::log1p(std::exp(x)));
    case UnaryActivation::neg:
      return -x;
    case UnaryActivation::pow:
      return std::pow(x, a);
    case UnaryActivation::prelu:
      return x >= 0 ? x : x * slope;
    case UnaryActivation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case UnaryActivation::silu:
      return x / (1 + std::exp(-x));
    case UnaryActivation::softplus:
      return a * x > b ? x : std::log1p(std::exp(a * x)) / a;
    case UnaryActivation::sqrt:
      return std::sqrt(x);
    case UnaryActivation::tanh:
      return std::tanh(x);
  }
  return x;
}

/// Whether a result is near the exact one; a value beyond fp16 must be infinite.
bool is_near(half result, double value, double x) {
  constexpr double kOverflow = 65520;
  const double found = to_float(result);
  if (std::isnan(value)) return std::isnan(found);
  const double tolerance = 0.0006 * std::abs(value) + 2e-6 * (1 + std::abs(x));
  const bool may_overflow = std::abs(value) + tolerance >= kOverflow;
  if (may_overflow && std::isinf(found)) return std::signbit(found) == std::signbit(value);
  return std::abs(found - value) <= tolerance;
}

void check_case(const ActivationKernel& kernel, Trial& trial, const Function& named,
                std::int64_t pixels, std::int64_t channels) {
  trial.begin(std::string(named.name) + ", " + std::to_string(pixels) + " pixels, " +
              std::to_string(channels) + " channels");
  const std::int64_t count = pixels * channels;
  const Guarded<half> src(count);
  const Guarded<float> slopes(channels);
  for (std::int64_t i = 0; i < count; ++i)
    src[i] = half{static_cast<std::uint16_t>(count < 65536 ? trial.random.bits() : i)};
  for (std::int64_t c = 0; c < channels; ++c) slopes[c] = trial.random.uniform(-1, 1);
  const auto [a, b] = numbers_of(named.function);
  const ActivationArgs args{.src = src.data(),
                            .pixels = pixels,
                            .channels = channels,
                            .function = named.function,
                            .a = a,
                            .b = b,
                            .slopes = slopes.data()};
  const Destination<half> dst(1, count, count);
  check_against_reference(activation_kernels(), kernel, args, dst, trial);
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = to_float(src[i]);
    const double value = exact(args, x, slopes[i % channels]);
    if (std::isfinite(x) && !is_near(dst.at(0, i), value, x)) {
      trial.fail("of " + text(src[i]) + " is " + text(dst.at(0, i)) + ", far from " +
                 text(static_cast<float>(value)));
    }
  }
}

void check(const ActivationKernel& kernel, Trial& trial) {
  for (const Function& named : kFunctions) {
    check_case(kernel, trial, named, 1, 8);
    check_case(kernel, trial, named, 7, 24);
    check_case(kernel, trial, named, 4096, 16);
  }
}

/// tanh: of the functions that need polynomials, the one that networks here use.
Bench bench(const ActivationKernel& kernel) {
  const auto src = random_halves(kBenchElements, 1);
  const auto dst = random_halves(kBenchElements, 2);
  return {.amount = kBenchElements, .unit = "elements", .run = [&kernel, src, dst] {
            kernel.function({.src = src->data(),
                             .dst = dst->data(),
                             .pixels = kBenchPixels,
                             .channels = kBenchChannels,
                             .function = UnaryActivation::tanh});
          }};
}

}  // namespace

void append_activation(std::vector<Subject>& subjects) {
  append_rows(subjects, activation_kernels(), check, bench);
}

}  // namespace qpp::check
