// SPDX-License-Identifier: Apache-2.0
#include "kernels/select.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

enum class Family : std::uint8_t {
#define QPP_FAMILY(name, Row) name,
#include "kernels/families.inc"
};

template <Family kFamily, typename Row>
std::vector<Row> make_rows() {
  using enum DType;
  std::vector<Row> rows;
  rows.reserve(all_kernels().size());  // GCC 14 warns where the vector grows
#define QPP_KERNEL(family, name, needs, ...) \
  if constexpr (kFamily == Family::family) rows.push_back({{#name, needs}, __VA_ARGS__, name});
#include "kernels/variants.inc"
  return rows;
}

}  // namespace

#define QPP_FAMILY(name, Row)                                                                  \
  const std::vector<Row>& name##_kernels() {                                                   \
    static const std::vector<Row> rows = make_rows<Family::name, Row>();                       \
    return rows;                                                                               \
  }                                                                                            \
  const Row& KernelSelection::name(std::optional<DType> dst, std::optional<DType> src) const { \
    const Row* match = find(name##_kernels(), [=](const Row& row) {                            \
      return row.dst == dst.value_or(row.dst) && row.src == src.value_or(row.src);             \
    });                                                                                        \
    QPP_ASSUME(match != nullptr);                                                              \
    return *match;                                                                             \
  }
#include "kernels/families.inc"

std::vector<KernelInfo> all_kernels() {
  return {
#define QPP_KERNEL(family, name, needs, ...) {#name, needs},
#include "kernels/variants.inc"
  };
}

KernelSelection KernelSelection::from_environment() {
  const char* forced = std::getenv("QPP_FORCE_KERNEL");
  return {detect_cpu_features(), forced == nullptr ? "" : forced};
}

KernelSelection::KernelSelection(const CpuFeatures& cpu, std::string_view forced)
    : cpu_(cpu), forced_(forced) {
  if (forced.empty() || forced == "ref" || forced == "neon" || forced == "x86") return;
  const std::vector<KernelInfo> kernels = all_kernels();
  const auto found = std::find_if(kernels.begin(), kernels.end(),
                                  [=](const KernelInfo& info) { return forced == info.name; });
  QPP_CHECK(found != kernels.end(), UnsupportedError, "QPP_FORCE_KERNEL=", forced,
            ": expected \"ref\", \"neon\", \"x86\" or the name of a kernel");
  QPP_CHECK(cpu.covers(found->needs), UnsupportedError, "QPP_FORCE_KERNEL=", forced,
            ": this CPU cannot run that kernel");
}

}  // namespace qpp
