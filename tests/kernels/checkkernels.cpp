// SPDX-License-Identifier: Apache-2.0
//
// Proves every row of variants.inc against its contract, or runs it for an instrument to time.

#include "checkkernels.h"

#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/select.h"

namespace qpp::check {

bool same(half a, half b) {
  return a.bits == b.bits || (std::isnan(to_float(a)) && std::isnan(to_float(b)));
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

std::string text(float value) {
  std::ostringstream stream;
  stream.precision(9);
  stream << value;
  return stream.str();
}

namespace {

constexpr const char* kUsage =
    R"(usage: checkkernels [--filter TEXT] [--seed N] [--json] [--list | --bench [--iters N]]

Checks all kernels whose name holds TEXT. --list only names them. --bench runs each once to warm up
and then N times (default 1) on its standard shape, and prints the amount of work; an
instrument measures the time.
)";

struct Options {
  std::string filter;
  std::uint64_t seed = 1;
  std::int64_t iters = 1;
  bool list = false;
  bool bench = false;
  bool json = false;
};

/// A wrong command line.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename Integer>
Integer parse(const std::string& option, const std::string& value) {
  Integer result = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || end != value.data() + value.size() || result < 0) {
    throw UsageError(option + ": expected a whole number, got " + value);
  }
  return result;
}

Options parse_options(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    const auto value = [&] {
      if (i + 1 == arguments.size()) throw UsageError(option + ": a value is missing");
      return arguments[++i];
    };
    if (option == "--filter") {
      options.filter = value();
    } else if (option == "--seed") {
      options.seed = parse<std::uint64_t>(option, value());
    } else if (option == "--iters") {
      options.iters = parse<std::int64_t>(option, value());
    } else if (option == "--list") {
      options.list = true;
    } else if (option == "--bench") {
      options.bench = true;
    } else if (option == "--json") {
      options.json = true;
    } else {
      throw UsageError(option + ": unknown option");
    }
  }
  return options;
}

const Trial* running = nullptr;

/// Names the case that touched memory beyond its operands, or used an unknown instruction.
void report_signal(int number) {
  const char* what = number == SIGILL ? "illegal instruction: " : "access out of bounds: ";
  std::cerr << what << (running == nullptr ? "" : running->current()) << '\n';
  std::_Exit(1);
}

/// The outcome of one subject, in the order of the output.
struct Outcome {
  std::string name;
  std::string status;  // "ok", "failed", "not on this CPU", "available"
  std::vector<std::pair<const char*, std::int64_t>> numbers;
  std::string failure;
};

Outcome handle(const Subject& subject, const Options& options) {
  Outcome outcome{.name = subject.info.name, .status = "ok", .numbers = {}, .failure = {}};
  if (!detect_cpu_features().covers(subject.info.needs)) {
    outcome.status = "not on this CPU";
  } else if (options.list) {
    outcome.status = "available";
  } else if (options.bench) {
    const Bench bench = subject.bench();
    bench.run();
    for (std::int64_t i = 0; i < options.iters; ++i) bench.run();
    outcome.numbers = {{bench.unit, bench.amount}, {"iters", options.iters}};
  } else {
    Trial trial(subject.info.name, options.seed);
    running = &trial;
    subject.check(trial);
    running = nullptr;
    outcome.numbers = {{"cases", trial.cases()}};
    if (trial.failed()) {
      outcome.status = "failed";
      outcome.failure = trial.failure();
    }
  }
  return outcome;
}

void print(const Outcome& outcome, bool json, bool first) {
  if (json) {
    std::cout << (first ? "[\n" : ",\n") << R"(  {"name": ")" << outcome.name << R"(", "status": ")"
              << outcome.status << '"';
    for (const auto& [key, number] : outcome.numbers) {
      std::cout << ", \"" << key << "\": " << number;
    }
    if (!outcome.failure.empty()) std::cout << R"(, "failure": ")" << outcome.failure << '"';
    std::cout << '}';
  } else {
    std::cout << outcome.name << ": " << outcome.status;
    for (const auto& [key, number] : outcome.numbers) std::cout << ", " << number << ' ' << key;
    if (!outcome.failure.empty()) std::cout << "\n  " << outcome.failure;
    std::cout << '\n';
  }
  std::cout.flush();
}

/// A kernel that nobody checks, or measures on the arguments of its check, must not exist.
void expect_all_rows(const std::vector<Subject>& subjects) {
  for (const KernelInfo& row : all_kernels()) {
    const bool found =
        std::any_of(subjects.begin(), subjects.end(), [&row](const Subject& subject) {
          return std::string_view(subject.info.name) == row.name && subject.check && subject.bench;
        });
    if (!found) throw UsageError(std::string(row.name) + ": no check or no bench");
  }
}

int run(const Options& options) {
  std::vector<Subject> subjects;
  append_output_stage(subjects);
  append_conv(subjects);
  append_quantize(subjects);
  append_statistics(subjects);
  append_winograd(subjects);
  append_elementwise(subjects);
  append_depthwise(subjects);
  append_activation(subjects);
  append_pool(subjects);
  append_resize(subjects);
  append_sparse(subjects);
  expect_all_rows(subjects);
  std::erase_if(subjects, [&options](const Subject& subject) {
    return std::string(subject.info.name).find(options.filter) == std::string::npos ||
           (options.bench && !subject.bench);
  });
  if (subjects.empty()) throw UsageError("--filter: no kernel's name holds " + options.filter);

  std::signal(SIGSEGV, report_signal);
  std::signal(SIGBUS, report_signal);
  std::signal(SIGILL, report_signal);
  int failed = 0;
  int absent = 0;
  for (const Subject& subject : subjects) {
    const Outcome outcome = handle(subject, options);
    failed += outcome.status == "failed" ? 1 : 0;
    absent += outcome.status == "not on this CPU" ? 1 : 0;
    print(outcome, options.json, &subject == &subjects.front());
  }
  if (options.json) {
    std::cout << "\n]\n";
  } else {
    std::cout << subjects.size() << " kernels, " << failed << " failed, " << absent
              << " not on this CPU\n";
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace qpp::check

int main(int argc, char** argv) {
  try {
    return qpp::check::run(qpp::check::parse_options({argv + 1, argv + argc}));
  } catch (const qpp::check::UsageError& error) {
    std::cerr << "checkkernels: " << error.what() << '\n' << qpp::check::kUsage;
    return 2;
  }
}
