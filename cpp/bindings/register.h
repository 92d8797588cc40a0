// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

#include <map>
#include <string>

#include "network/model.h"

namespace qpp {

// One function per file of this folder; module.cpp calls them all.
void register_errors(pybind11::module_& module);
void register_kernels(pybind11::module_& module);
void register_model(pybind11::module_& module);
void register_session(pybind11::module_& module);

/// Limits by their names.
using LimitMap = std::map<std::string, std::int64_t>;

/// A model file given by its path (str) or its contents (bytes).
Model model_from(const pybind11::object& source, const LimitMap& limits);
ModelFile model_file_from(const pybind11::object& source, const LimitMap& limits);

}  // namespace qpp
