// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace qpp {

/// Charge and energy drawn from a battery, by its current and voltage as Linux and Android show
/// them. The whole device is measured: switch its screen and radios off, and compare with a run of
/// the same length that does nothing.
class BatteryMeter {
 public:
  /// Finds the first battery under `folder` that reports current_now (microamperes) and voltage_now
  /// (microvolts). Throws UnsupportedError if there is none, or if it is not discharging.
  explicit BatteryMeter(const std::string& folder = "/sys/class/power_supply");

  /// Reads both; `seconds` is the time since any fixed moment. Between samples they are
  /// interpolated linearly. Throws UnsupportedError if they can no longer be read.
  void sample(double seconds);

  [[nodiscard]] double milliampere_hours() const { return coulombs_ / 3.6; }
  [[nodiscard]] double joules() const { return joules_; }
  [[nodiscard]] double seconds() const { return last_.seconds - first_seconds_; }
  [[nodiscard]] std::int64_t samples() const { return samples_; }

 private:
  struct Sample {
    double seconds = 0;
    double amperes = 0;
    double watts = 0;
  };

  std::string folder_;  // of the battery
  double first_seconds_ = 0;
  Sample last_;
  double coulombs_ = 0;
  double joules_ = 0;
  std::int64_t samples_ = 0;
};

}  // namespace qpp
