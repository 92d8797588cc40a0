// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <sstream>
#include <stdexcept>
#include <string>

namespace qpp {

/// Base of all exceptions of the engine for bad input. Messages name the node or value, the
/// expected and the actual input.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// A model file that is truncated, altered or not of this format.
class ModelError : public Error {
 public:
  using Error::Error;
};
/// A model file that cannot be read at all.
class FileError : public ModelError {
 public:
  using ModelError::ModelError;
};
class ShapeError : public Error {
 public:
  using Error::Error;
};
/// A valid request that this build or version does not support.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};
/// NaN or infinity in an input of a quantized run, or from finite inputs.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

}  // namespace qpp

/// Validates input; throws `Type` with the concatenated message. For prepare() and loaders.
#define QPP_CHECK(condition, Type, ...)                       \
  do {                                                        \
    if (!(condition)) throw Type(::qpp::concat(__VA_ARGS__)); \
  } while (false)

/// Asserts a fact that earlier checks ensure. For run() and kernels; compiled out in release
/// builds.
#define QPP_ASSUME(condition) assert(condition)
