// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <string>

namespace qpp {

/// Cores by the numbers that Linux gives them.
using CoreSet = std::bitset<1024>;

/// The cores that the calling thread may run on; empty where the system does not report them.
CoreSet allowed_cores();

/// Those of `cores` with the highest capacity: by cpu<N>/cpu_capacity under `folder`, or by
/// cpu<N>/cpufreq/cpuinfo_max_freq. All of `cores` if files are missing.
CoreSet fastest_cores(const CoreSet& cores, const std::string& folder = "/sys/devices/system/cpu");

/// Keeps the calling thread on some cores during its lifetime. An empty set has no effect.
class CoreGuard {
 public:
  explicit CoreGuard(const CoreSet& cores);
  ~CoreGuard();
  CoreGuard(const CoreGuard&) = delete;
  CoreGuard& operator=(const CoreGuard&) = delete;

 private:
  CoreSet before_;
};

}  // namespace qpp
