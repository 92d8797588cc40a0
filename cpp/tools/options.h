// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace qpp::bench {

/// A wrong command line, or an unsupported request; ends the program with status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The command line: `--name value`, flags, and everything else.
class Options {
 public:
  Options(int argc, char** argv) {
    for (int i = 0; i < argc; ++i) {
      const std::string argument = argv[i];
      if (!argument.starts_with("--")) {
        positional.push_back(argument);
      } else if (argument == "--json" || argument == "--profile" || argument == "--range" ||
                 argument == "--energy" || argument == "--help") {
        values_[argument] = "";
      } else if (i + 1 < argc) {
        values_[argument] = argv[++i];
      } else {
        throw UsageError(argument + ": a value is missing");
      }
    }
  }

  /// Refuses options outside `known`, and those that are understood but not available.
  void only(const std::vector<std::string>& known) const {
    for (const auto& [name, value] : values_) {
      if (name == "--energy" || name == "--power-supply") continue;
      if (std::find(known.begin(), known.end(), name) == known.end())
        throw UsageError(name + ": unknown option");
    }
  }
  [[nodiscard]] bool has(const std::string& name) const { return values_.contains(name); }
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) throw UsageError(name + " is missing");
    return found->second;
  }
  [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise) const {
    return has(name) ? text(name) : otherwise;
  }
  [[nodiscard]] std::int64_t integer(const std::string& name) const {
    return parse_integer(name, text(name));
  }
  [[nodiscard]] std::int64_t integer(const std::string& name, std::int64_t otherwise) const {
    return has(name) ? integer(name) : otherwise;
  }
  [[nodiscard]] double number(const std::string& name, double otherwise) const {
    if (!has(name)) return otherwise;
    const std::string value = text(name);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0') throw UsageError(name + ": expected a number, got " + value);
    return number;
  }
  /// "18+36+72" as three numbers.
  [[nodiscard]] std::vector<std::int64_t> list(const std::string& name, char separator) const {
    std::vector<std::int64_t> result;
    std::istringstream stream(text(name));
    for (std::string part; std::getline(stream, part, separator);)
      result.push_back(parse_integer(name, part));
    return result;
  }
  /// "56x56x64" as three numbers.
  [[nodiscard]] std::vector<std::int64_t> sizes(const std::string& name, std::size_t count) const {
    std::vector<std::int64_t> result = list(name, 'x');
    if (result.size() != count)
      throw UsageError(name + ": expected " + std::to_string(count) + " sizes joined by x");
    return result;
  }

  std::vector<std::string> positional;

 private:
  static std::int64_t parse_integer(const std::string& name, const std::string& value) {
    std::int64_t result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size() || result < 1 ||
        result > 1'000'000) {
      throw UsageError(name + ": expected a whole number from 1 to 1000000, got " + value);
    }
    return result;
  }

  std::map<std::string, std::string> values_;
};

}  // namespace qpp::bench
