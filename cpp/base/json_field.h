// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json_reader.h"

namespace qpp {

/// A JSON value and its path in the document, which errors name.
class Field {
 public:
  Field(const nlohmann::json& value, std::string where)
      : value_(&value), where_(std::move(where)) {}

  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] bool has(const char* key) const {
    return value_->is_object() && value_->contains(key);
  }
  [[nodiscard]] Field operator[](const char* key) const {
    check(value_->is_object(), "an object");
    QPP_CHECK(value_->contains(key), ModelError, where_, ": '", key, "' is missing");
    return {value_->at(key), concat(where_, ".", key)};
  }
  [[nodiscard]] std::string string() const {
    check(value_->is_string(), "a string");
    return value_->get<std::string>();
  }
  [[nodiscard]] std::int64_t integer(std::int64_t lowest, std::int64_t highest) const {
    check(value_->is_number_integer(), "an integer");
    const bool fits = value_->is_number_unsigned()
                          ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(highest)
                          : value_->get<std::int64_t>() <= highest;
    const auto result = value_->get<std::int64_t>();
    QPP_CHECK(fits && result >= lowest, ModelError, where_, ": expected an integer from ", lowest,
              " to ", highest, ", got ", describe(*value_));
    return result;
  }
  [[nodiscard]] double number() const {
    check(value_->is_number(), "a number");
    return value_->get<double>();
  }
  [[nodiscard]] bool boolean() const {
    check(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }
  [[nodiscard]] bool is_null() const { return value_->is_null(); }
  [[nodiscard]] std::vector<Field> list() const {
    check(value_->is_array(), "a list");
    std::vector<Field> items;
    for (std::size_t i = 0; i < value_->size(); ++i)
      items.emplace_back(value_->at(i), concat(where_, "[", i, "]"));
    return items;
  }
  [[nodiscard]] std::vector<Field> list(std::size_t size) const {
    std::vector<Field> items = list();
    QPP_CHECK(items.size() == size, ModelError, where_, ": expected ", size, " items, got ",
              items.size());
    return items;
  }
  [[nodiscard]] std::vector<std::string> strings() const {
    std::vector<std::string> result;
    for (const Field& item : list()) result.push_back(item.string());
    return result;
  }
  [[nodiscard]] std::vector<std::pair<std::string, Field>> members() const {
    check(value_->is_object(), "an object");
    std::vector<std::pair<std::string, Field>> result;
    for (const auto& [key, item] : value_->items())
      result.emplace_back(key, Field(item, concat(where_, ".", key)));
    return result;
  }
  /// Refuses keys that this version does not know: they may change the meaning of the rest.
  void only(const std::set<std::string>& known) const {
    check(value_->is_object(), "an object");
    for (const auto& [key, item] : value_->items()) {
      QPP_CHECK(known.contains(key), UnsupportedError, where_, ": '", key,
                "' is not known to this version of qppengine");
    }
  }

 private:
  void check(bool is_type, const char* expected) const {
    QPP_CHECK(is_type, ModelError, where_, ": expected ", expected, ", got ", value_->type_name());
  }

  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace qpp
