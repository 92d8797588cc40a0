// SPDX-License-Identifier: Apache-2.0
#include "tensor/constants.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace qpp {

Constants::Constants(const std::map<std::string, Tensor>& tensors, const Limits& limits)
    : tensors_(tensors), limits_(limits) {
  for (const auto& [name, tensor] : tensors) {
    file_elements_ += tensor.elements();
    file_bytes_ += static_cast<std::int64_t>(tensor.bytes.size());
  }
}

const Tensor& Constants::find(const std::string& name, const std::string& where) const {
  const auto found = tensors_.find(name);
  QPP_CHECK(found != tensors_.end(), ModelError, where, ": the file has no tensor '", name, "'");
  return found->second;
}

namespace {

std::vector<float> elements_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = tensor.at(static_cast<std::int64_t>(i));
  return values;
}

}  // namespace

std::vector<float> Constants::floats(const Tensor& tensor, const std::string& where) {
  QPP_CHECK(tensor.dtype != DType::qsi8, ModelError, where,
            ": expected a tensor of dtype F16 or F32, got I8");
  std::vector<float> values = elements_of(tensor);
  QPP_CHECK(
      std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }),
      ModelError, where, ": a tensor holds NaN or infinity");
  return values;
}

std::vector<float> Constants::levels(const Tensor& tensor, const std::string& where) {
  QPP_CHECK(tensor.dtype == DType::qsi8, ModelError, where,
            ": expected int8 weights of dtype I8, got another dtype");
  std::vector<float> values = elements_of(tensor);
  QPP_CHECK(std::find(values.begin(), values.end(), -128.0F) == values.end(), ModelError, where,
            ": expected int8 weights from -127 to 127, got -128");
  return values;
}

void Constants::count(std::int64_t elements, std::int64_t packed_bytes, const std::string& where) {
  // Up to these totals, small files may share and pack constants in any proportion.
  constexpr std::int64_t kFreeElements = 1 << 23;
  constexpr std::int64_t kFreePackedBytes = 1 << 26;
  elements_ += elements;
  packed_bytes_ += packed_bytes;
  check_limit(limits_, &Limits::constant_bytes, elements_ * 4, where, ": the bytes of constants");
  check_limit(limits_, &Limits::sharing,
              (elements_ - kFreeElements) / std::max<std::int64_t>(file_elements_, 1), where,
              ": the constants read, as a multiple of those of the file,");
  check_limit(limits_, &Limits::packing,
              (packed_bytes_ - kFreePackedBytes) / std::max<std::int64_t>(file_bytes_, 1), where,
              ": the packed constants, as a multiple of those of the file,");
}

}  // namespace qpp
