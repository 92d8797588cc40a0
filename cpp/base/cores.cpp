// SPDX-License-Identifier: Apache-2.0
#include "base/cores.h"

#include <cstddef>
#include <fstream>
#include <optional>

#include "base/check.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace qpp {
namespace {

std::optional<long long> read_number(const std::string& path) {
  std::ifstream file(path);
  long long number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

/// Restricts the calling thread; a set that the system refuses leaves it as it is.
void restrict_thread(const CoreSet& cores) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  for (std::size_t core = 0; core < cores.size(); ++core) {
    if (cores[core]) CPU_SET(core, &set);
  }
  sched_setaffinity(0, sizeof(set), &set);
#else
  (void)cores;
#endif
}

/// The cores for which cpu<N>/`name` holds the highest number; none when a file is missing.
CoreSet find_highest(const CoreSet& cores, const std::string& folder, const std::string& name) {
  CoreSet found;
  long long highest = 0;
  for (std::size_t core = 0; core < cores.size(); ++core) {
    if (!cores[core]) continue;
    const auto number = read_number(concat(folder, "/cpu", core, "/", name));
    if (!number) return {};
    if (*number > highest) {
      highest = *number;
      found.reset();
    }
    found[core] = *number == highest;
  }
  return found;
}

}  // namespace

CoreSet allowed_cores() {
  CoreSet cores;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (std::size_t core = 0; core < cores.size(); ++core) cores[core] = CPU_ISSET(core, &set) != 0;
#endif
  return cores;
}

CoreSet fastest_cores(const CoreSet& cores, const std::string& folder) {
  for (const char* name : {"cpu_capacity", "cpufreq/cpuinfo_max_freq"}) {
    const CoreSet found = find_highest(cores, folder, name);
    if (found.any()) return found;
  }
  return cores;
}

CoreGuard::CoreGuard(const CoreSet& cores) {
  if (cores.none()) return;
  before_ = allowed_cores();
  restrict_thread(cores);
}

CoreGuard::~CoreGuard() {
  if (before_.any()) restrict_thread(before_);
}

}  // namespace qpp
