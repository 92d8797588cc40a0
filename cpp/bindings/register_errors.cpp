// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <new>
#include <string_view>

#include "base/check.h"
#include "bindings/register.h"

namespace py = pybind11;

namespace qpp {
namespace {

/// Raises the exception class of this name of qppengine.errors, where all of them live.
void raise(const char* name, const Error& error) {
  // Names of files and nodes need not be UTF-8.
  const std::string_view what = error.what();
  const auto message = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(what.data(), static_cast<py::ssize_t>(what.size()), "backslashreplace"));
  py::set_error(py::module_::import("qppengine.errors").attr(name), message);
}

}  // namespace

void register_errors(py::module_& /*module*/) {
  // NOLINTNEXTLINE(performance-unnecessary-value-param): pybind11's signature
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const FileError& error) {
      raise("FileError", error);
    } catch (const ModelError& error) {
      raise("ModelError", error);
    } catch (const ShapeError& error) {
      raise("ShapeError", error);
    } catch (const UnsupportedError& error) {
      raise("UnsupportedError", error);
    } catch (const NonFiniteError& error) {
      raise("NonFiniteError", error);
    } catch (const Error& error) {
      raise("Error", error);
    } catch (const std::bad_alloc&) {
      raise("Error", Error("there is not enough memory for this model"));
    }
  });
}

}  // namespace qpp
