// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>

#include <cstring>

#include "bindings/register.h"
#include "network/safetensors.h"

namespace py = pybind11;

namespace qpp {
namespace {

py::array to_array(const Tensor& tensor) {
  py::array array(py::dtype(tensor.dtype == DType::f16 ? "float16" : "float32"), tensor.shape);
  std::memcpy(array.mutable_data(), tensor.bytes.data(), tensor.bytes.size());
  return array;
}

}  // namespace

ModelFile model_file_from(const py::object& source) {
  if (py::isinstance<py::bytes>(source)) {
    const auto contents = source.cast<std::string_view>();
    return read_model_file(std::as_bytes(std::span(contents)), "model bytes");
  }
  const auto path = source.cast<std::string>();
  return read_model_file(read_file(path), path);
}

Model model_from(const py::object& source) {
  return parse_model(model_file_from(source), py::isinstance<py::bytes>(source)
                                                  ? "model bytes"
                                                  : source.cast<std::string>());
}

void register_model(py::module_& module) {
  module.def(
      "read_model",
      [](const py::object& source) {
        const ModelFile file = model_file_from(source);
        py::dict tensors;  // NOLINT(misc-const-correctness): its items are set
        for (const auto& [name, tensor] : file.tensors) tensors[py::str(name)] = to_array(tensor);
        return py::make_tuple(file.graph_json, tensors);
      },
      py::arg("source"));
}

}  // namespace qpp
