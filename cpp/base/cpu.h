// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qpp {

/// Instruction-set extensions beyond Armv8-A that kernels may need.
struct CpuFeatures {
  bool neon = false;
  bool fp16 = false;     // FEAT_FP16: half-precision arithmetic
  bool dotprod = false;  // FEAT_DotProd: SDOT, UDOT

  /// True when this CPU has everything that `needed` asks for.
  [[nodiscard]] bool covers(const CpuFeatures& needed) const {
    return (neon || !needed.neon) && (fp16 || !needed.fp16) && (dotprod || !needed.dotprod);
  }
};

/// What the running CPU offers, as the Linux kernel reports it.
CpuFeatures detect_cpu_features();

}  // namespace qpp
