// SPDX-License-Identifier: Apache-2.0
//
// The contract of a kernel.
//
// A kernel may
//
// - read and write the memory that its args struct names,
// - assume the promises of the args' comments.
//
// A kernel must not
//
// - allocate, throw, lock, start threads, keep state, read the environment, call the operating
//   system,
// - use tensors or graphs,
// - read or write a byte more than its box states.
//
// Each family has one header (args struct and row type), a readable reference (*_ref.cpp) that is
// correct everywhere, and variants under neon/ and x86/. families.inc lists the families and
// variants.inc the kernels: a row declares the function, offers it to select.h and registers it
// with checkkernels. Without neon/ and x86/ the engine builds and is correct.
//
// Names have the form
// <op>[s<stride>]_<dst>_<src>[_<weights>][_<rows>x<columns>]_<engine>[_<feature>]
//
// - types: f32, f16; qai8: int8 with scale and zero point; qsi8cx: symmetric int8, one scale per
//   output channel
// - tile, rows x columns: output pixels x output channels that one call holds in registers
// - engine: ref, neon, x86
// - feature: the extension beyond Armv8-A or x86-64 that the file is compiled for; dotprod includes
//   fp16, which all CPUs with dot products have
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "tensor/dtype.h"

namespace qpp {

/// The common part of all rows of variants.inc.
struct KernelInfo {
  const char* name;
  CpuFeatures needs;
};

/// A row of most families.
template <typename Args, typename Result = void>
struct Kernel {
  using Function = Result (*)(const Args& args);
  KernelInfo info;
  DType dst;
  DType src;
  Function function;
};

/// A row of the families that read packed weights.
template <typename Args, typename Result = void>
struct WeightedKernel {
  using Function = Result (*)(const Args& args);
  KernelInfo info;
  DType dst;
  DType src;
  DType weights;
  Function function;
};

}  // namespace qpp
