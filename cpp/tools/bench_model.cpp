// SPDX-License-Identifier: Apache-2.0
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

}  // namespace

void bench_model(const Options& options, ordered_json& report) {
  options.only({"--scheme", "--size", "--algorithm", "--activation-bits", "--iters", "--threads",
                "--cores", "--residual-dtype", "--density", "--profile", "--trace", "--json"});
  if (options.positional.size() != 2) throw UsageError("model: expected one FILE");
  if (options.has("--trace") && is_emulated())
    throw UsageError("--trace: timing is not available under emulation");
  SessionOptions session_options;
  session_options.scheme = options.text("--scheme");
  session_options.activation_bits = static_cast<int>(options.integer("--activation-bits", 8));
  session_options.threads = static_cast<int>(options.integer("--threads", 1));
  session_options.cores = options.text("--cores", "all");
  session_options.algorithm = options.text("--algorithm", "auto");
  if (options.has("--residual-dtype"))
    session_options.residual_dtype = options.text("--residual-dtype");
  if (options.has("--density")) session_options.density = options.number("--density", 0);
  Session session(load_model(options.positional[1]), session_options);

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
