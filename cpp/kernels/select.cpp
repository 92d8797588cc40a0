// SPDX-License-Identifier: Apache-2.0
#include "kernels/select.h"

#include <cstdlib>
#include <string>

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

/// Whether two convolutions of the same sources read the same packed weights.
bool share_weights(const ConvKernel& a, const ConvKernel& b) {
  return a.src == b.src && a.weights == b.weights && a.mr == b.mr && a.nr == b.nr && a.kr == b.kr;
}

template <typename Row>
const Row& existing(const Row* row) {
  QPP_ASSUME(row != nullptr);
  return *row;
}

}  // namespace

#define QPP_FAMILY(name, Row)                                                                      \
  const std::vector<Row>& name##_kernels() {                                                       \
    static const std::vector<Row> rows = make_rows<Family::name, Row>();                           \
    return rows;                                                                                   \
  }                                                                                                \
  const Row& KernelSelection::name() const {                                                       \
    return existing(find(name##_kernels(), [](const Row&) { return true; }));                      \
  }                                                                                                \
  const Row& KernelSelection::name(DType dst, DType src) const {                                   \
    return existing(                                                                               \
        find(name##_kernels(), [=](const Row& row) { return row.dst == dst && row.src == src; })); \
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
  for (const KernelInfo& info : all_kernels()) {
    if (forced != info.name) continue;
    QPP_CHECK(cpu.covers(info.needs), UnsupportedError, "QPP_FORCE_KERNEL=", forced,
              ": this CPU cannot run that kernel");
    return;
  }
  throw UnsupportedError(concat("QPP_FORCE_KERNEL=", forced,
                                ": expected \"ref\", \"neon\", \"x86\" or the name of a kernel"));
}

bool KernelSelection::allows(const KernelInfo& info) const {
  const bool is_reference = std::string_view(info.name).ends_with("_ref");
  return cpu_.covers(info.needs) && (forced_ != "ref" || is_reference);
}

/// The last row that fits and is allowed; a row forced by name before all others.
template <typename Row, typename Fits>
const Row* KernelSelection::find(const std::vector<Row>& rows, const Fits& fits) const {
  const Row* match = nullptr;
  for (const Row& row : rows) {
    if (!fits(row) || !allows(row.info)) continue;
    if (forced_ == row.info.name) return &row;
    match = &row;
  }
  return match;
}

const ConvKernel& KernelSelection::conv_to(DType dst, const ConvKernel& general) const {
  return existing(find(conv_kernels(), [&](const ConvKernel& row) {
    return row.dst == dst && share_weights(row, general);
  }));
}

const ConvKernel* KernelSelection::conv3x3s1(const ConvKernel& general) const {
  return find(conv3x3s1_kernels(), [&](const ConvKernel& row) {
    return row.dst == general.dst && share_weights(row, general);
  });
}

Winograd4Kernels KernelSelection::winograd4(DType dst, DType src) const {
  const WinogradMultiplyKernel& multiply = winograd4_multiply();
  return {.input = &winograd4_input(multiply.src, src),
          .multiply = &multiply,
          .output = &winograd4_output(dst, multiply.dst)};
}

}  // namespace qpp
