// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "network/session.h"
#include "tools/benches.h"
#include "tools/measure.h"

namespace qpp::bench {

using nlohmann::ordered_json;

namespace {

/// The steps of a model with their times for the whole batch, medians of all runs but the first.
ordered_json profile_of(const std::vector<StepInfo>& steps,
                        const std::vector<std::vector<StepTime>>& runs) {
  ordered_json rows = ordered_json::array();
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const StepInfo& step = steps[s];
    ordered_json row = {{"node", step.node},
                        {"op", step.op},
                        {"kernel", step.kernel},
                        {"dtype", step.dtype},
                        {"shape", step.shape.batch == 0 ? "" : to_string(step.shape)},
                        {"macs", step.macs},
                        {"bytes", step.bytes},
                        {"calls", runs.size() - 1},
                        {"ms_median", nullptr}};
    std::vector<double> milliseconds;
    for (std::size_t run = 1; run < runs.size(); ++run) {
      std::int64_t nanoseconds = 0;
      for (std::size_t i = s; i < runs[run].size(); i += steps.size())
        nanoseconds += runs[run][i].end - runs[run][i].begin;
      milliseconds.push_back(static_cast<double>(nanoseconds) * 1e-6);
    }
    if (!is_emulated()) row["ms_median"] = median(milliseconds);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// The steps of all samples of all runs in the format of chrome://tracing and Perfetto.
void write_trace(const std::string& path, const std::vector<StepInfo>& steps,
                 const std::vector<std::vector<StepTime>>& runs) {
  ordered_json events = ordered_json::array();
  for (const auto& run : runs) {
    for (std::size_t i = 0; i < run.size(); ++i) {
      const StepInfo& step = steps[i % steps.size()];
      const std::size_t samples = run.size() / steps.size();
      const std::int64_t macs = step.macs / static_cast<std::int64_t>(samples);
      events.push_back(
          {{"name", step.node},
           {"cat", step.op},
           {"ph", "X"},
           {"ts", static_cast<double>(run[i].begin - runs[0][0].begin) * 1e-3},
           {"dur", static_cast<double>(run[i].end - run[i].begin) * 1e-3},
           {"pid", 0},
           {"tid", 0},
           {"args", {{"kernel", step.kernel}, {"sample", i / steps.size()}, {"macs", macs}}}});
    }
  }
  std::ofstream file(path);
  file << ordered_json{{"traceEvents", std::move(events)}};
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

/// "--activation-bits".
std::string flag_of(const SessionOption& option) {
  std::string flag = concat("--", option.name);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

SessionOptions session_options_of(const Options& options) {
  SessionOptions result;
  const auto set = [&](const std::string& flag, const char* name) {
    try {
      if (options.has(flag)) set_option(result, name, options.text(flag));
    } catch (const UnsupportedError& error) {
      throw UsageError(error.what());
    }
  };
  result.scheme = options.text("--scheme");  // required
  set("--skip", "residual_dtype");           // its former name
  for (const SessionOption& option : session_options()) set(flag_of(option), option.name);
  return result;
}

/// The words, or the kind of number, that an option takes.
std::string values_of(const SessionOption& option) {
  std::string values;
  for (const std::string& choice : option.choices) {
    if (!values.empty()) values += '|';
    values += choice;
  }
  if (option.type == OptionType::integer) return concat(option.min, "..", option.max);
  return option.type == OptionType::number ? concat("NUMBER up to ", option.max) : values;
}

}  // namespace

std::string describe_session_options() {
  std::string text;
  for (const SessionOption& option : session_options())
    text += concat("  ", flag_of(option), " ", values_of(option), "\n      ", option.help, "\n");
  return text;
}

void bench_model(const Options& options, ordered_json& report) {
  std::vector<std::string> known = {"--size",  "--iters", "--profile",
                                    "--trace", "--json",  "--skip"};
  for (const SessionOption& option : session_options()) known.push_back(flag_of(option));
  options.only(known);
  if (options.positional.size() != 2) throw UsageError("model: expected one FILE");
  if (options.has("--trace") && is_emulated())
    throw UsageError("--trace: timing is not available under emulation");
  Session session(load_model(options.positional[1]), session_options_of(options));

  const std::vector<std::int64_t> open =
      options.has("--size") ? options.sizes("--size", 2) : std::vector<std::int64_t>{64, 64};
  Random random;
  std::vector<std::vector<float>> data;
  std::vector<Session::Input> inputs;
  for (const Model::Input& input : session.inputs()) {
    const Shape shape{.batch = input.shape[0].value_or(1),
                      .height = input.shape[2].value_or(open[0]),
                      .width = input.shape[3].value_or(open[1]),
                      .channels = *input.shape[1]};
    std::vector<float>& values =
        data.emplace_back(static_cast<std::size_t>(shape.pixels() * shape.channels));
    for (float& value : values) value = (random.next() + 1.0F) / 2.0F;
    inputs.push_back({.data = values.data(), .shape = shape});
    report["input"] = to_string(shape);
  }
  std::vector<std::vector<float>> outputs(session.outputs().size());
  const auto place = [&outputs](std::size_t index, const Shape& shape) {
    outputs[index].resize(static_cast<std::size_t>(shape.pixels() * shape.channels));
    return outputs[index].data();
  };
  const bool profiles = options.has("--profile") || options.has("--trace");
  std::vector<std::vector<StepTime>> runs;
  measure(
      options,
      [&] { session.run(inputs, place, {.times = profiles ? &runs.emplace_back() : nullptr}); },
      report);
  const SessionMemory memory = session.memory();
  report["weight_bytes"] = memory.weights;
  report["arena_bytes"] = memory.arena;
  report["peak_bytes"] = memory.peak;
  report["crc32"] = checksum(std::as_bytes(std::span(outputs[0])));
  if (options.has("--profile")) report["steps"] = profile_of(session.explain(), runs);
  if (options.has("--trace")) write_trace(options.text("--trace"), session.explain(), runs);
}

}  // namespace qpp::bench
