// SPDX-License-Identifier: Apache-2.0
#include "base/json_reader.h"

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace qpp {
namespace {

using nlohmann::json;

/// Builds the document from the parser's events, and checks limits before it does.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(const std::string& where, const Limits& limits, const JsonItems& items)
      : where_(where), limits_(limits), items_(items) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return scalar(value);
  }
  bool string(string_t& value) override {
    if (!items_.long_strings) check_name(value);
    return scalar(std::move(value));
  }
  bool binary(binary_t& /*value*/) override { return false; }

  bool start_object(std::size_t /*size*/) override { return start(json::object()); }
  bool start_array(std::size_t /*size*/) override { return start(json::array()); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }

  bool key(string_t& name) override {
    check_name(name);
    count();
    const bool of_items = open_.size() == 1 && items_.depth == 1;
    QPP_CHECK(of_items || open_.back().keys.insert(name).second, ModelError, where_, ": the key '",
              name, "' occurs twice in an object");
    if (open_.size() == 1) member_ = name;
    key_ = name;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    throw ModelError(concat(where_, " is not JSON: byte ", position, " is unexpected"));
  }

  json take() {
    QPP_CHECK(root_.is_object(), ModelError, where_, ": expected a JSON object, got ",
              root_.type_name());
    return std::move(root_);
  }

 private:
  struct Open {
    json* value;
    std::string key;             // in the object around it
    std::int64_t before;         // values that were kept when it began
    std::set<std::string> keys;  // of an object, so far
  };

  void check_name(const std::string& name) const {
    check_limit(limits_, &Limits::name_bytes, name.size(), where_, ": the length of a name");
  }
  void count() {
    check_limit(limits_, &Limits::json_values, ++values_, where_, ": the number of values");
  }

  /// Puts a value in its place.
  json* add(json value) {
    count();
    if (open_.empty()) return &(root_ = std::move(value));
    json& parent = *open_.back().value;
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool scalar(json value) {
    const std::int64_t before = values_;
    json* added = add(std::move(value));
    finish(*added, key_, before);
    return true;
  }

  bool start(json empty) {
    check_limit(limits_, &Limits::nesting, open_.size() + 1, where_, ": the nesting");
    const std::int64_t before = values_;
    json* added = add(std::move(empty));
    open_.push_back({.value = added, .key = key_, .before = before, .keys = {}});
    return true;
  }

  bool end() {
    const Open done = std::move(open_.back());
    open_.pop_back();
    finish(*done.value, done.key, done.before);
    return true;
  }

  /// Offers a complete value, if it is an item, and removes it unless it is kept.
  void finish(json& value, const std::string& key, std::int64_t before) {
    if (open_.size() != items_.depth || items_.keep(member_, value)) return;
    json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.erase(parent.size() - 1);
    } else {
      parent.erase(key);
    }
    values_ = before;
  }

  const std::string& where_;
  const Limits& limits_;
  const JsonItems& items_;
  json root_;
  std::vector<Open> open_;  // lists and objects around the place that is parsed
  std::string key_;
  std::string member_;
  std::int64_t values_ = 0;
};

}  // namespace

json parse_json(std::string_view text, const std::string& where, const Limits& limits,
                const JsonItems& items) {
  Builder builder(where, limits, items);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string quote(std::string_view text) {
  constexpr std::size_t kMaxBytes = 64;
  return concat("'", text.substr(0, kMaxBytes), text.size() > kMaxBytes ? "...'" : "'");
}

std::string describe(const json& value) {
  if (value.is_structured()) return value.type_name();
  return value.is_string() ? quote(value.get_ref<const std::string&>()) : value.dump();
}

}  // namespace qpp
