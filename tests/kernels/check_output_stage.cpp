// SPDX-License-Identifier: Apache-2.0
//
// The formulas of output_stage.h against the C library.

#include "kernels/output_stage.h"

#include <cmath>

#include "checkkernels.h"

namespace qpp::check {
namespace {

void check_tanh(Trial& trial) {
  trial.begin("tanh_shared");
  const auto check = [&trial](float x) {
    const double expected = std::tanh(static_cast<double>(x));
    const double error = std::abs(tanh_shared(x) - expected);
    if (error > 6e-7 * std::abs(expected)) {
      trial.fail("tanh(" + text(x) + ") = " + text(tanh_shared(x)));
    }
  };
  for (int i = 0; i < 20000; ++i) {
    check(trial.random.uniform(-12, 12));
    check(std::ldexp(trial.random.uniform(-1, 1), static_cast<int>(trial.random.integer(-30, 0))));
  }
  for (const float x : {0.0F, 1e-30F, 10.0F, 100.0F, 1e30F, INFINITY}) {
    check(x);
    check(-x);
  }
  if (!std::isnan(tanh_shared(NAN))) trial.fail("tanh(NaN) is a number");
}

void check_rounding(Trial& trial) {
  trial.begin("round_to_int8");
  for (int zero_point = -128; zero_point <= 127; zero_point += 17) {
    for (int quarter = 4 * (-128 - zero_point); quarter <= 4 * (127 - zero_point); ++quarter) {
      const float level = static_cast<float>(quarter) / 4;
      for (const float near : {std::nextafter(level, -1e9F), level, std::nextafter(level, 1e9F)}) {
        const float expected = std::nearbyint(near) + static_cast<float>(zero_point);
        const float got = round_to_int8(near, zero_point);
        if (expected >= -128 && expected <= 127 && got != expected) {
          trial.fail(text(near) + " rounds to " + text(got - static_cast<float>(zero_point)));
        }
      }
    }
    if (round_to_int8(NAN, zero_point) != zero_point) trial.fail("NaN is not the zero point");
  }
}

void check_clamp(Trial& trial) {
  trial.begin("clamp_level");
  if (clamp_level(-7, -1, 2) != -1 || clamp_level(7, -1, 2) != 2 || clamp_level(1, -1, 2) != 1) {
    trial.fail("a bound is not kept");
  }
  if (std::signbit(clamp_level(-0.0F, 0, 2))) trial.fail("-0 stays below +0");
  if (!std::isnan(clamp_level(NAN, -1, 2))) trial.fail("NaN does not pass");
}

void check_range(Trial& trial) {
  trial.begin("extend_range");
  Range range;
  for (const float value : {3.0F, -2.0F, 5.0F, 0.0F}) extend_range(range, value);
  if (range.lo != -2 || range.hi != 5)
    trial.fail("bounds are " + text(range.lo) + ", " + text(range.hi));
  extend_range(range, NAN);
  extend_range(range, 1);
  if (!std::isnan(range.lo) || !std::isnan(range.hi)) trial.fail("NaN is forgotten");
}

}  // namespace

void append_output_stage(std::vector<Subject>& subjects) {
  const auto check = [](Trial& trial) {
    check_tanh(trial);
    check_rounding(trial);
    check_clamp(trial);
    check_range(trial);
  };
  subjects.push_back({.info = {.name = "output_stage", .needs = {}}, .check = check, .bench = {}});
}

}  // namespace qpp::check
