// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace qpp {

/// How a session runs a model; session_options.inc describes each option.
struct SessionOptions {
#define QPP_CHOICE(name, default_value, choices, help) std::string name = default_value;
#define QPP_OPTIONAL_CHOICE(name, choices, help) std::optional<std::string> name;
#define QPP_INTEGER(name, default_value, min, max, error, help) int name = default_value;
#define QPP_OPTIONAL_NUMBER(name, max, help) std::optional<double> name;
#include "network/session_options.inc"
};

/// Empty: not given.
using OptionValue = std::variant<std::monostate, std::int64_t, double, std::string>;

enum class OptionType : std::uint8_t { choice, integer, number };

/// A row of session_options.inc.
struct SessionOption {
  const char* name;
  OptionType type;
  std::vector<std::string> choices;
  double min = 0;  // of an integer; a number is above it
  double max = 0;
  const char* help;
  OptionValue (*get)(const SessionOptions& options);
  bool (*set)(SessionOptions& options, const OptionValue& value);  // false: of another type
  void (*fail)(const std::string& message);                        // throws

  [[nodiscard]] OptionValue default_value() const { return get({}); }
};

/// "choice", "integer" or "number".
const char* name_of(OptionType type);
/// "a string", "a whole number" or "a number".
const char* expected_type(const SessionOption& option);

/// All rows, in order.
const std::vector<SessionOption>& session_options();

/// Throws UnsupportedError for an unknown name.
const SessionOption& find_session_option(const std::string& name);

/// Sets an option from text. Throws UnsupportedError for an unknown name or a value of another
/// type.
void set_option(SessionOptions& options, const std::string& name, const std::string& text);

/// Throws for a value out of range or not among the choices.
void check_options(const SessionOptions& options);

}  // namespace qpp
