// SPDX-License-Identifier: Apache-2.0
//
// The contract of a kernel.
//
// A kernel can:    read and write the memory that its args struct names; assume what the args'
// comments promise. A kernel cannot: allocate, throw, lock, start threads, keep state, read the
// environment, call the operating system,
//                  know tensors or graphs, read or write one byte more than its box states.
//
// Each family has one header (args struct and function type), a readable reference (*_ref.cpp) that
// is correct everywhere, and variants under neon/ and x86/. variants.inc has one row per kernel: it
// declares the function, offers it to select.h and puts it before checkkernels. Deleting neon/,
// x86/ and their rows leaves a correct engine.
//
// A name tells what a kernel is:
// <op>[s<stride>]_<dst>_<src>[_<weights>][_<rows>x<columns>]_<engine>[_<feature>].
//   types     f32, f16; qai8: int8 with scale and zero point; qsi8cx: symmetric int8, one scale per
//   output channel tile      output pixels x output channels that one call holds in registers
//   engine    ref, neon, x86; feature: the extension beyond Armv8-A or x86-64 that the file is
//             compiled for; dotprod includes fp16, which all CPUs with dot products have
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "tensor/dtype.h"

namespace qpp {

/// What every row of variants.inc has, whatever its family.
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
