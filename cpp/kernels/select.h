// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/families.h"

namespace qpp {

/// The kernels of a Winograd convolution, which agree on the type of V and M.
struct Winograd4Kernels {
  const WinogradInputKernel* input;
  const WinogradMultiplyKernel* multiply;
  const WinogradOutputKernel* output;
};

/// Selects among the rows of variants.inc that a CPU can run. QPP_FORCE_KERNEL narrows them: "ref",
/// "neon" or "x86" keep one engine (the reference stays where the others have no kernel); the full
/// name of a kernel selects it wherever its family and types fit.
class KernelSelection {
 public:
  /// For the running CPU and the environment variable. Throws UnsupportedError for a name that does
  /// not exist or that this CPU cannot run.
  static KernelSelection from_environment();
  KernelSelection(const CpuFeatures& cpu, std::string_view forced);

// For each family, the kernel for these types. Without types: for a family with one pair of types,
// or whatever types the CPU handles best. There must be one.
#define QPP_FAMILY(name, Row)            \
  [[nodiscard]] const Row& name() const; \
  [[nodiscard]] const Row& name(DType dst, DType src) const;
#include "kernels/families.inc"

  /// The general convolution to another type that shares the packed weights of `general`, which
  /// reads int8; it always exists.
  [[nodiscard]] const ConvKernel& conv_to(DType dst, const ConvKernel& general) const;
  /// The 3x3 stride 1 interior kernel that shares the packed weights of `general`, or null.
  [[nodiscard]] const ConvKernel* conv3x3s1(const ConvKernel& general) const;
  /// The 3x3 stride 1 convolution by Winograd's algorithm for these types; it always exists.
  [[nodiscard]] Winograd4Kernels winograd4(DType dst, DType src) const;

  [[nodiscard]] bool allows(const KernelInfo& info) const;

 private:
  template <typename Row, typename Fits>
  const Row* find(const std::vector<Row>& rows, const Fits& fits) const;

  CpuFeatures cpu_;
  std::string forced_;
};

/// For each family, its rows of variants.inc, in order.
#define QPP_FAMILY(name, Row) const std::vector<Row>& name##_kernels();
#include "kernels/families.inc"
/// The common part of all rows.
std::vector<KernelInfo> all_kernels();

}  // namespace qpp
