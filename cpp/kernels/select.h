// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/families.h"

namespace qpp {

/// Selects among the rows of variants.inc that a CPU can run. QPP_FORCE_KERNEL narrows them: "ref",
/// "neon" or "x86" keep one engine (the reference stays where the others have no kernel); the full
/// name of a kernel selects it wherever its family and types fit.
class KernelSelection {
 public:
  /// For the running CPU and the environment variable. Throws UnsupportedError for a name that does
  /// not exist or that this CPU cannot run.
  static KernelSelection from_environment();
  KernelSelection(const CpuFeatures& cpu, std::string_view forced);

// For each family, the kernel for these types; there must be one. A type that is not given may be
// any: the one that the CPU handles best.
#define QPP_FAMILY(name, Row) \
  [[nodiscard]] const Row& name(std::optional<DType> dst = {}, std::optional<DType> src = {}) const;
#include "kernels/families.inc"

  /// The last row that fits and that the CPU can run, or null; a row forced by name comes first.
  template <typename Row, typename Fits>
  [[nodiscard]] const Row* find(const std::vector<Row>& rows, const Fits& fits) const {
    const Row* match = nullptr;
    for (const Row& row : rows) {
      const std::string_view name = row.info.name;
      if (!fits(row) || !cpu_.covers(row.info.needs)) continue;
      if (forced_ == name) return &row;
      if (forced_ != "ref" || name.ends_with("_ref")) match = &row;
    }
    return match;
  }

 private:
  CpuFeatures cpu_;
  std::string forced_;
};

/// For each family, its rows of variants.inc, in order.
#define QPP_FAMILY(name, Row) const std::vector<Row>& name##_kernels();
#include "kernels/families.inc"
/// The common part of all rows.
std::vector<KernelInfo> all_kernels();

}  // namespace qpp
