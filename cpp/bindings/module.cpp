// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ engine of qppengine.";
  module.attr("__version__") = QPP_VERSION;
  qpp::register_errors(module);
  qpp::register_kernels(module);
  qpp::register_model(module);
  qpp::register_session(module);
}
