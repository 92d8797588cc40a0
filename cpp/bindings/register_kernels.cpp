// SPDX-License-Identifier: Apache-2.0
#include "base/cores.h"
#include "bindings/register.h"
#include "kernels/select.h"

namespace py = pybind11;

namespace qpp {

void register_kernels(py::module_& module) {
  module.def("cpu_features", [] {
    const CpuFeatures cpu = detect_cpu_features();
    py::dict result;
    result["neon"] = cpu.neon;
    result["fp16"] = cpu.fp16;
    result["dotprod"] = cpu.dotprod;
    result["avx2"] = cpu.avx2;
    return result;
  });
  module.def("cores", [] {
    const CoreSet all = allowed_cores();
    py::dict result;
    result["all"] = all.count();
    result["big"] = fastest_cores(all).count();
    return result;
  });
  module.def("is_emulated", &is_emulated);
  module.def("kernels", [] {
    const CpuFeatures cpu = detect_cpu_features();
    py::list rows;
    for (const KernelInfo& info : all_kernels()) {
      py::dict row;
      row["name"] = info.name;
      row["available"] = cpu.covers(info.needs);
      rows.append(row);
    }
    return rows;
  });
}

}  // namespace qpp
