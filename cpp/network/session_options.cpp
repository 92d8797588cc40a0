// SPDX-License-Identifier: Apache-2.0
#include "network/session_options.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <utility>

#include "base/join.h"
#include "tensor/outliers.h"

namespace qpp {
namespace {

constexpr const char* kSchemeNames =
#define QPP_SCHEME(name, make) "|" name
#include "network/schemes.inc"
    ;

std::vector<std::string> split(const std::string& choices) {
  std::vector<std::string> result;
  std::istringstream stream(choices);
  for (std::string choice; std::getline(stream, choice, '|');) {
    if (!choice.empty()) result.push_back(choice);
  }
  return result;
}

template <typename Type>
void fail(const std::string& message) {
  throw Type(message);
}

/// "a", "b" or "c".
std::string alternatives(const std::vector<std::string>& choices) {
  std::string text;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) text += i + 1 < choices.size() ? ", " : " or ";
    text += concat('"', choices[i], '"');
  }
  return text;
}

OptionValue to_value(const std::string& value) { return value; }
OptionValue to_value(int value) { return std::int64_t{value}; }
template <typename Type>
OptionValue to_value(const std::optional<Type>& value) {
  return value ? OptionValue(*value) : OptionValue();
}

bool assign(std::string& member, const OptionValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr) member = *text;
  return text != nullptr;
}
bool assign(int& member, const OptionValue& value) {
  const auto* integer = std::get_if<std::int64_t>(&value);
  if (integer == nullptr || !std::in_range<int>(*integer)) return false;
  member = static_cast<int>(*integer);
  return true;
}
bool assign(double& member, const OptionValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    member = static_cast<double>(*integer);
    return true;
  }
  const auto* number = std::get_if<double>(&value);
  if (number != nullptr) member = *number;
  return number != nullptr;
}
template <typename Type>
bool assign(std::optional<Type>& member, const OptionValue& value) {
  if (value.index() == 0) {
    member.reset();
    return true;
  }
  return assign(member.emplace(), value);
}

template <auto kMember>
OptionValue get(const SessionOptions& options) {
  return to_value(options.*kMember);
}
template <auto kMember>
bool set(SessionOptions& options, const OptionValue& value) {
  return assign(options.*kMember, value);
}

/// A number where the text is one, else the text.
OptionValue parse(OptionType type, const std::string& text) {
  const char* const end = text.data() + text.size();
  if (type == OptionType::integer) {
    std::int64_t integer = 0;
    const auto [rest, error] = std::from_chars(text.data(), end, integer);
    if (error == std::errc() && rest == end) return integer;
  } else if (type == OptionType::number) {
    double number = 0;
    std::istringstream stream(text);
    if (stream >> number && stream.peek() == EOF) return number;
  }
  return text;
}

void check(const SessionOption& option, const OptionValue& value) {
  const auto& choices = option.choices;
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && std::find(choices.begin(), choices.end(), *text) == choices.end())
    option.fail(concat(option.name, ": expected ", alternatives(choices), ", got \"", *text, "\""));
  const auto* integer = std::get_if<std::int64_t>(&value);
  const double whole = integer == nullptr ? option.min : static_cast<double>(*integer);
  if (whole < option.min || whole > option.max)
    option.fail(
        concat(option.name, ": expected ", option.min, " to ", option.max, ", got ", *integer));
  const auto* number = std::get_if<double>(&value);
  if (number != nullptr && !(*number > option.min && *number <= option.max))
    option.fail(concat(option.name, ": expected a number above ", option.min, " and up to ",
                       option.max, ", got ", *number));
}

}  // namespace

const char* name_of(OptionType type) {
  constexpr const char* kNames[] = {"choice", "integer", "number"};
  return kNames[static_cast<std::size_t>(type)];
}

const char* expected_type(const SessionOption& option) {
  constexpr const char* kExpected[] = {"a string", "a whole number", "a number"};
  return kExpected[static_cast<std::size_t>(option.type)];
}

const std::vector<SessionOption>& session_options() {
  static const std::vector<SessionOption> options = {
#define QPP_OPTION(name, type, choices, min, max, help, error) \
  {#name,                                                      \
   OptionType::type,                                           \
   split(choices),                                             \
   min,                                                        \
   max,                                                        \
   help,                                                       \
   &get<&SessionOptions::name>,                                \
   &set<&SessionOptions::name>,                                \
   &fail<error>},
#define QPP_CHOICE(name, default_value, choices, help) \
  QPP_OPTION(name, choice, choices, 0, 0, help, UnsupportedError)
#define QPP_OPTIONAL_CHOICE(name, choices, help) \
  QPP_OPTION(name, choice, choices, 0, 0, help, UnsupportedError)
#define QPP_INTEGER(name, default_value, min, max, error, help) \
  QPP_OPTION(name, integer, "", min, max, help, error)
#define QPP_OPTIONAL_NUMBER(name, max, help) \
  QPP_OPTION(name, number, "", 0, max, help, UnsupportedError)
#include "network/session_options.inc"
#undef QPP_OPTION
  };
  return options;
}

const SessionOption& find_session_option(const std::string& name) {
  for (const SessionOption& option : session_options()) {
    if (option.name == name) return option;
  }
  throw UnsupportedError(concat("expected one of the options ",
                                join(session_options(), &SessionOption::name), ", got \"", name,
                                "\""));
}

void set_option(SessionOptions& options, const std::string& name, const std::string& text) {
  const SessionOption& option = find_session_option(name);
  QPP_CHECK(option.set(options, parse(option.type, text)), UnsupportedError, option.name,
            ": expected ", expected_type(option), ", got \"", text, "\"");
}

void check_options(const SessionOptions& options) {
  for (const SessionOption& option : session_options()) check(option, option.get(options));
}

}  // namespace qpp
