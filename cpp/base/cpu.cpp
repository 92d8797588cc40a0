// SPDX-License-Identifier: Apache-2.0
#include "base/cpu.h"

#include <cstddef>
#include <fstream>
#include <string>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace qpp {

CpuFeatures detect_cpu_features() {
#if defined(__aarch64__)
  const unsigned long capabilities = getauxval(AT_HWCAP);
  return {.neon = (capabilities & HWCAP_ASIMD) != 0,
          .fp16 = (capabilities & HWCAP_ASIMDHP) != 0,
          .dotprod = (capabilities & HWCAP_ASIMDDP) != 0};
#elif defined(__x86_64__)
  return {.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
                  __builtin_cpu_supports("f16c") != 0};
#else
  return {};
#endif
}

bool is_emulated() {
  // The emulator answers for /proc/self itself, but not for this name of the same file.
  std::ifstream maps("/proc/thread-self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t slash = line.rfind('/');
    if (slash != std::string::npos && line.compare(slash + 1, 4, "qemu") == 0) return true;
  }
  return false;
}

}  // namespace qpp
