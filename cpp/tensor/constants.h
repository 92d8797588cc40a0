// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/limits.h"
#include "tensor/tensor.h"

namespace qpp {

/// The tensors of a model file, and the amount of them that its nodes read.
class Constants {
 public:
  /// `tensors` must outlive this object.
  Constants(const std::map<std::string, Tensor>& tensors, const Limits& limits);

  /// Throws ModelError, which begins with `where`, for a name that the file does not have.
  [[nodiscard]] const Tensor& find(const std::string& name, const std::string& where) const;
  /// All elements of F16 or F32. Throws ModelError for NaN and infinity.
  [[nodiscard]] static std::vector<float> floats(const Tensor& tensor, const std::string& where);
  /// All elements of I8. Throws ModelError for -128, which symmetric weights do not have.
  [[nodiscard]] static std::vector<float> levels(const Tensor& tensor, const std::string& where);

  /// Call this before memory is allocated for the constants of a node. Adds the elements that the
  /// node reads and the approximate size of its packed constants. Throws ModelError if the totals
  /// of all nodes exceed the limits, which are in proportion to the size of the file.
  void count(std::int64_t elements, std::int64_t packed_bytes, const std::string& where);

 private:
  const std::map<std::string, Tensor>& tensors_;
  Limits limits_;
  std::int64_t file_elements_ = 0;
  std::int64_t file_bytes_ = 0;
  std::int64_t elements_ = 0;  // of the nodes so far
  std::int64_t packed_bytes_ = 0;
};

}  // namespace qpp
