// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qpp {

/// Instruction-set extensions beyond Armv8-A and x86-64 that kernels may need.
struct CpuFeatures {
  bool neon = false;
  bool fp16 = false;     // FEAT_FP16: half-precision arithmetic
  bool dotprod = false;  // FEAT_DotProd: SDOT, UDOT
  bool avx2 = false;     // AVX2 with FMA and F16C

  /// True when this CPU has everything that `needed` asks for.
  [[nodiscard]] bool covers(const CpuFeatures& needed) const {
    return (neon || !needed.neon) && (fp16 || !needed.fp16) && (dotprod || !needed.dotprod) &&
           (avx2 || !needed.avx2);
  }
};

/// The features of the running CPU.
CpuFeatures detect_cpu_features();

/// True under QEMU user-mode emulation, where timing is not available.
bool is_emulated();

}  // namespace qpp
