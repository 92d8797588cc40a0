// SPDX-License-Identifier: Apache-2.0
//
// The native bench, for a phone, a board or an instrument: one warm-up, then exactly --iters runs
// of the code that the network runs (padding, epilogue and fused quantize included).

#include <algorithm>
#include <cstddef>
#include <exception>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/check.h"
#include "tools/benches.h"

namespace qpp::bench {
namespace {

using nlohmann::ordered_json;

constexpr const char* kUsage =
    R"(usage: qpp_bench conv --dtype fp16|int8|ds --size HxWxC --filters F [--kernel 3] [--stride 1]
                      [--algorithm auto|direct|winograd] [--out int8|ds|fp16] [--residual int8|fp16] [--range]
                      [--density 0.01] --iters N [--threads 1] [--json]
       qpp_bench depthwise --dtype fp16|int8 --size HxWxC [--kernel 3] [--stride 1] [--out int8|fp16]
                      --iters N [--threads 1] [--json]
       qpp_bench linear --dtype fp16|int8 --size HxWxC --filters F [--out int8|fp16] --iters N [--threads 1]
                      [--json]
       qpp_bench concat --dtype fp16|int8 --size HxW --channels C+C[+C...] [--out int8|fp16] --iters N
                      [--threads 1] [--json]
       qpp_bench resize --dtype fp16|int8 --size HxWxC [--scale 2] --iters N [--threads 1] [--json]
       qpp_bench pixel_shuffle --size HxWxC [--scale 2] [--out fp32] --iters N [--threads 1] [--json]
       qpp_bench add|mul|max_pool|avg_pool|global_avg_pool --dtype fp16|int8 --size HxWxC
                      [--out int8|fp16] [--kernel 3] [--stride 2] --iters N [--threads 1] [--json]
       qpp_bench quantize|minmax|quantile|predict --size HxWxC [--alpha 0.9997] --iters N [--threads 1] [--json]
       qpp_bench model FILE --scheme SCHEME [--size HxW] --iters N [--profile] [--trace FILE] [--json]
                      [--OPTION VALUE ...]

All commands take --energy [--power-supply /sys/class/power_supply].
Runs the work once to warm up, then N times. Timing is not available under emulation.
"macs" counts the multiply-accumulates of a run, "elements" the elements of the output (of a global
pool and of statistics: of the input), and "bytes" the least bytes that a run reads and writes:
sources, weights and result without padding. linear reads weights that are in no cache, as in a network.
--out fp32 writes NCHW, as at the end of a network.
ds is dense + sparse: int8 with a list of outliers, a share --density of the elements.
--size of a model sets dynamic dimensions; --profile adds its steps, and --trace writes them for
chrome://tracing. --energy reports the charge and energy of a discharging battery: run for minutes.

Options of a model:
)";

#ifdef __clang__
constexpr const char* kCompiler = "Clang " __clang_version__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

std::string text_of(const ordered_json& value) {
  if (value.is_null()) return "not measured (emulated)";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// Objects with the same keys, as columns.
void print_table(const ordered_json& rows) {
  std::vector<std::vector<std::string>> lines(1);
  for (const auto& [key, value] : rows[0].items()) lines[0].push_back(key);
  for (const ordered_json& row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const auto& [key, value] : row.items())
      line.push_back(value.is_null() ? "-" : text_of(value));
  }
  std::vector<std::size_t> widths(lines[0].size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : lines) {
    std::string text = " ";
    for (std::size_t i = 0; i < line.size(); ++i)
      text += " " + line[i] + std::string(widths[i] - line[i].size() + 1, ' ');
    std::cout << text.substr(0, text.find_last_not_of(' ') + 1) << '\n';
  }
}

void print(const ordered_json& report, bool as_json) {
  if (as_json) {
    std::cout << report.dump(1) << '\n';
    return;
  }
  for (const auto& [key, value] : report.items()) {
    std::cout << key << ':' << (value.is_array() ? "" : " " + text_of(value)) << '\n';
    if (value.is_array() && !value.empty()) print_table(value);
  }
}

int run(int argc, char** argv) {
  const Options options(argc - 1, argv + 1);
  static const std::map<std::string, void (*)(const Options&, ordered_json&)> kCommands = {
      {"conv", bench_conv},      {"depthwise", bench_conv},
      {"linear", bench_conv},    {"quantize", bench_tensor},
      {"minmax", bench_tensor},  {"quantile", bench_tensor},
      {"predict", bench_tensor}, {"model", bench_model},
      {"concat", bench_concat},  {"resize", bench_enlargement},
      {"add", bench_binary},     {"pixel_shuffle", bench_enlargement},
      {"mul", bench_binary},     {"max_pool", bench_pool},
      {"avg_pool", bench_pool},  {"global_avg_pool", bench_pool}};
  if (options.has("--help")) {
    std::cout << kUsage << describe_session_options();
    return 0;
  }
  const auto command =
      options.positional.empty() ? kCommands.end() : kCommands.find(options.positional[0]);
  if (command == kCommands.end())
    throw UsageError(concat("expected a command\n", kUsage, describe_session_options()));
  ordered_json report = {
      {"command", command->first}, {"version", QPP_VERSION}, {"compiler", kCompiler}};
  command->second(options, report);
  print(report, options.has("--json"));
  return 0;
}

}  // namespace
}  // namespace qpp::bench

int main(int argc, char** argv) {
  try {
    return qpp::bench::run(argc, argv);
  } catch (const qpp::bench::UsageError& error) {
    std::cerr << "qpp_bench: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "qpp_bench: " << error.what() << '\n';
    return 1;
  }
}
