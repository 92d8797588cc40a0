// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "bindings/register.h"
#include "network/int8_plan.h"
#include "network/safetensors.h"

namespace py = pybind11;

namespace qpp {
namespace {

py::array to_array(const Tensor& tensor) {
  const char* name = tensor.dtype == DType::f16    ? "float16"
                     : tensor.dtype == DType::qsi8 ? "int8"
                                                   : "float32";
  py::array array(py::dtype(name), tensor.shape);
  std::memcpy(array.mutable_data(), tensor.bytes.data(), tensor.bytes.size());
  return array;
}

/// Throws UnsupportedError.
Limits to_limits(const LimitMap& numbers) {
  Limits limits;
  for (const auto& [name, number] : numbers) {
    const auto* field = std::find_if(std::begin(kLimitFields), std::end(kLimitFields),
                                     [&](const LimitField& known) { return known.name == name; });
    QPP_CHECK(field != std::end(kLimitFields), UnsupportedError, "limits: '", name,
              "' is not a limit");
    QPP_CHECK(number >= 1 && number <= field->largest, UnsupportedError, "limits.", name,
              ": expected an integer from 1 to ", field->largest, ", got ", number);
    limits.*field->member = number;
  }
  return limits;
}

/// Default and maximum of every limit.
std::map<std::string, std::pair<std::int64_t, std::int64_t>> limits() {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> result;
  for (const LimitField& field : kLimitFields)
    result[field.name] = {Limits().*field.member, field.largest};
  return result;
}

/// In the encoding of file names.
std::string path_from(const py::object& source) {
  return py::module_::import("os").attr("fsencode")(source).cast<std::string>();
}

}  // namespace

ModelFile model_file_from(const py::object& source, const LimitMap& limits) {
  if (py::isinstance<py::bytes>(source)) {
    const auto contents = source.cast<std::string_view>();
    return read_model_file(std::as_bytes(std::span(contents)), "model bytes", to_limits(limits));
  }
  const std::string path = path_from(source);
  return read_model_file(read_file(path), path, to_limits(limits));
}

Model model_from(const py::object& source, const LimitMap& limits) {
  return parse_model(model_file_from(source, limits),
                     py::isinstance<py::bytes>(source) ? "model bytes" : path_from(source),
                     to_limits(limits));
}

void register_model(py::module_& module) {
  module.def(
      "read_model",
      [](const py::object& source, const LimitMap& limits) {
        const ModelFile file = model_file_from(source, limits);
        py::dict tensors;  // NOLINT(misc-const-correctness): its items are set
        for (const auto& [name, tensor] : file.tensors) tensors[py::str(name)] = to_array(tensor);
        return py::make_tuple(file.graph_json, tensors);
      },
      py::arg("source"), py::arg("limits") = LimitMap());
  module.def("limits", &limits);
  module.def(
      "plan_int8",
      [](std::string_view nodes) {
        const Int8Plan plan = plan_int8_of_json(nodes);
        py::dict result;
        result["int8_inputs"] = plan.int8_inputs;
        result["groups"] = plan.groups;
        result["values"] = plan.values;
        return result;
      },
      py::arg("nodes"));
}

}  // namespace qpp
