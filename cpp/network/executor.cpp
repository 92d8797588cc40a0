// SPDX-License-Identifier: Apache-2.0
#include "network/executor.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <span>
#include <utility>

#include "network/planner.h"
#include "ops/layout.h"
#include "ops/sparsify.h"

namespace qpp {
namespace {

std::int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

bool are_finite(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  }
  constexpr std::uint32_t kInfinity = 0x7f800000;
  return largest < kInfinity;
}

/// The end of a message about a value that is not finite although its inputs are.
std::string describe_non_finite(std::span<const float> values) {
  const auto is_infinite = [](float value) { return std::isinf(value); };
  if (std::any_of(values.begin(), values.end(), is_infinite)) {
    return "got an overflow of fp16 (magnitude above 65504) from finite inputs; scale the inputs, "
           "or the weights of this layer, down";
  }
  return "got NaN from finite inputs: the operation is not defined for some of them, like a square "
         "root for negative numbers, or its sums overflow fp16; limit the inputs";
}

}  // namespace

void check_size(const std::string& value, const Shape& shape, std::int64_t max_elements) {
  const double elements = static_cast<double>(shape.batch) * static_cast<double>(shape.height) *
                          static_cast<double>(shape.width) * static_cast<double>(shape.channels);
  QPP_CHECK(elements <= static_cast<double>(max_elements), ShapeError, "value '", value,
            "': ", to_string(shape), " is too large; the limit value_elements is ", max_elements);
}

Executor::Executor(Program program, int threads, const CoreSet& cores)
    : program_(std::move(program)), pool_(threads, cores) {}

void Executor::prepare(const std::vector<Shape>& inputs) {
  if (inputs == prepared_) return;
  prepared_.clear();  // stays empty if anything below throws
  infer_shapes(inputs);
  lay_out_arena();
  bind_arguments();
  prepared_ = inputs;
}

void Executor::infer_shapes(const std::vector<Shape>& inputs) {
  const std::vector<Step>& steps = program_.steps;
  shapes_.assign(program_.buffers.size(), Shape{});
  last_uses_.assign(program_.buffers.size(), 0);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto buffer = static_cast<std::size_t>(program_.inputs[i]);
    check_size(program_.buffers[buffer].value, inputs[i], program_.value_elements);
    shapes_[buffer] = inputs[i];
  }
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const Step& step = steps[s];
    std::vector<Shape> input_shapes;
    for (const int buffer : step.inputs) {
      input_shapes.push_back(shapes_[static_cast<std::size_t>(buffer)]);
      last_uses_[static_cast<std::size_t>(buffer)] = static_cast<int>(s);
    }
    const Shape output = step.op->prepare(input_shapes, pool_.threads());
    if (step.output >= 0) {
      check_size(step.node, output, program_.value_elements);
      shapes_[static_cast<std::size_t>(step.output)] = output;
      last_uses_[static_cast<std::size_t>(step.output)] = static_cast<int>(s);
    }
  }
  for (const int buffer : program_.outputs)
    last_uses_[static_cast<std::size_t>(buffer)] = static_cast<int>(steps.size());
}

void Executor::lay_out_arena() {
  const std::vector<Step>& steps = program_.steps;
  // One block for every buffer, but for those that take the place of another; then one for the
  // scratch of every step.
  std::vector<std::size_t> block_of_buffer(program_.buffers.size());
  std::vector<Lifetime> blocks;
  for (const int input : program_.inputs) {
    block_of_buffer[static_cast<std::size_t>(input)] = blocks.size();
    blocks.push_back({.bytes = buffer_bytes(input),
                      .first = 0,
                      .last = last_uses_[static_cast<std::size_t>(input)]});
  }
  for (int s = 0; s < static_cast<int>(steps.size()); ++s) {
    const int output = steps[static_cast<std::size_t>(s)].output;
    if (output < 0) continue;
    const int replaced = in_place_input(s);
    block_of_buffer[static_cast<std::size_t>(output)] =
        replaced < 0 ? blocks.size() : block_of_buffer[static_cast<std::size_t>(replaced)];
    if (replaced < 0) blocks.push_back({.bytes = buffer_bytes(output), .first = s, .last = s});
    blocks[block_of_buffer[static_cast<std::size_t>(output)]].last =
        last_uses_[static_cast<std::size_t>(output)];
  }
  for (int s = 0; s < static_cast<int>(steps.size()); ++s) {
    block_of_buffer.push_back(blocks.size());
    blocks.push_back(
        {.bytes = steps[static_cast<std::size_t>(s)].op->scratch_bytes(), .first = s, .last = s});
  }

  peak_bytes_ = qpp::peak_bytes(blocks);
  const MemoryPlan plan = plan_memory(blocks);
  arena_ = {};  // the old arena goes before the new one comes
  arena_ = Arena(plan.bytes);
  offsets_.clear();
  for (const std::size_t block : block_of_buffer) offsets_.push_back(plan.offsets[block]);
}

void Executor::bind_arguments() {
  const std::vector<Step>& steps = program_.steps;
  step_inputs_.clear();
  for (const Step& step : steps) {
    for (const int buffer : step.inputs) step_inputs_.push_back(view(buffer));
  }
  args_.clear();
  std::size_t first_input = 0;
  for (std::size_t s = 0; s < steps.size(); ++s) {
    RunArgs args;
    args.inputs = std::span(step_inputs_).subspan(first_input, steps[s].inputs.size());
    first_input += steps[s].inputs.size();
    if (steps[s].output >= 0) args.output = view(steps[s].output);
    args.scratch = arena_.data() + offsets_[shapes_.size() + s];
    args_.push_back(args);
  }
  find_direct_writers();
}

void Executor::find_direct_writers() {
  std::vector<int> readers(program_.buffers.size(), 0);  // steps, and outputs
  std::vector<int> writers(program_.buffers.size(), -1);
  for (std::size_t s = 0; s < program_.steps.size(); ++s) {
    const Step& step = program_.steps[s];
    for (const int buffer : step.inputs) ++readers[static_cast<std::size_t>(buffer)];
    if (step.output >= 0 && step.op->writes_output_directly())
      writers[static_cast<std::size_t>(step.output)] = static_cast<int>(s);
  }
  for (const int output : program_.outputs) ++readers[static_cast<std::size_t>(output)];
  direct_writers_.clear();
  for (const int output : program_.outputs) {
    const auto buffer = static_cast<std::size_t>(output);
    direct_writers_.push_back(readers[buffer] == 1 ? writers[buffer] : -1);
  }
}

int Executor::in_place_input(int index) const {
  const Step& step = program_.steps[static_cast<std::size_t>(index)];
  const auto output = static_cast<std::size_t>(step.output);
  const auto in_place = [&](int buffer) {
    for (std::size_t i = 0; i < step.inputs.size(); ++i) {
      if (step.inputs[i] == buffer && !step.op->runs_in_place(i)) return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < step.inputs.size(); ++i) {
    const int buffer = step.inputs[i];
    const auto input = static_cast<std::size_t>(buffer);
    if (step.op->runs_in_place(i) && last_uses_[input] == index &&
        shapes_[input] == shapes_[output] &&
        program_.buffers[input].dtype == program_.buffers[output].dtype &&
        buffer_bytes(buffer) == buffer_bytes(step.output) &&  // outliers included
        in_place(buffer)) {
      return buffer;
    }
  }
  return -1;
}

std::size_t Executor::buffer_bytes(int buffer) const {
  const auto index = static_cast<std::size_t>(buffer);
  const Buffer& kind = program_.buffers[index];
  const std::size_t dense =
      static_cast<std::size_t>(shapes_[index].elements()) * size_of(kind.dtype);
  return kind.sparse ? round_up(dense, kAlignment) + outlier_bytes(shapes_[index]) : dense;
}

TensorView Executor::view(int buffer) {
  const auto index = static_cast<std::size_t>(buffer);
  const Buffer& kind = program_.buffers[index];
  std::byte* data = arena_.data() + offsets_[index];
  TensorView view{.data = data, .dtype = kind.dtype, .shape = shapes_[index]};
  if (kind.sparse) {
    const auto dense = static_cast<std::size_t>(view.shape.elements());
    view.outliers = outliers_of(view.shape, data + round_up(dense, kAlignment));
  }
  return view;
}

const Shape& Executor::output_shape(std::size_t index) const {
  return shapes_[static_cast<std::size_t>(program_.outputs[index])];
}

void Executor::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                   QpTable& table, bool check_finite, const RunHooks& hooks, std::int64_t sample) {
  const CoreGuard guard(pool_.cores());
  const bool finite_inputs = import_inputs(inputs, check_finite);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (direct_writers_[i] < 0) continue;
    args_[static_cast<std::size_t>(direct_writers_[i])].direct_output =
        hooks.observe ? nullptr : outputs[i];
  }
  for (const auto& [row, qparams] : table.replaced) table.qparams[row] = qparams;
  table.replaced.clear();
  RunState state = table.state(pool_);
  StepTime* const times =
      hooks.times == nullptr
          ? nullptr
          : hooks.times->data() + static_cast<std::size_t>(sample) * args_.size();
  for (std::size_t s = 0; s < args_.size(); ++s) {
    if (times != nullptr) times[s].begin = now();
    run_step(s, state, table);
    if (times != nullptr) times[s].end = now();
    if (hooks.observe && program_.steps[s].output >= 0) hooks.observe(output_of(sample, s, table));
    if (hooks.check_interrupt) hooks.check_interrupt();
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const bool written = direct_writers_[i] >= 0 && !hooks.observe;
    if (outputs[i] != nullptr && !written)
      export_nchw(view(program_.outputs[i]), outputs[i], pool_);
  }
  if (!finite_inputs) return;  // of fp16, which passes them on
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Shape& shape = output_shape(i);
    const std::int64_t count = shape.pixels() * shape.channels;
    if (outputs[i] != nullptr && !are_finite(outputs[i], count)) {
      raise_non_finite(
          inputs, program_.buffers[static_cast<std::size_t>(program_.outputs[i])].value, table);
    }
  }
}

bool Executor::import_inputs(const std::vector<const float*>& inputs, bool check_finite) {
  bool all_finite = true;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool finite = import_nchw(inputs[i], view(program_.inputs[i]), pool_);
    QPP_CHECK(finite || !check_finite, NonFiniteError, "input '",
              program_.buffers[static_cast<std::size_t>(program_.inputs[i])].value,
              "': expected finite numbers within fp16 (magnitude up to 65504), got NaN, infinity "
              "or larger");
    all_finite &= finite;
  }
  return all_finite;
}

void Executor::raise_non_finite(const std::vector<const float*>& inputs, const std::string& output,
                                QpTable& table) {
  import_inputs(inputs, false);
  QpTable again = table;  // each event of a run is counted once
  RunState state = again.state(pool_);
  for (std::size_t s = 0; s < args_.size(); ++s) {
    args_[s].direct_output = nullptr;
    run_step(s, state, again);
    const TensorView& value = args_[s].output;
    if (program_.steps[s].output < 0 || value.dtype != DType::f16) continue;
    const std::int64_t count = value.shape.pixels() * value.shape.channels;
    std::vector<float> numbers(static_cast<std::size_t>(count));
    export_nchw(value, numbers.data(), pool_);
    QPP_CHECK(are_finite(numbers.data(), count), NonFiniteError, "value '",
              program_.buffers[static_cast<std::size_t>(program_.steps[s].output)].value,
              "': ", describe_non_finite(numbers));
  }
  throw NonFiniteError(concat("output '", output, "': got NaN or infinity from finite inputs"));
}

void Executor::run_step(std::size_t step, RunState& state, QpTable& table) const {
  const Op& op = *program_.steps[step].op;
  const TensorView& value = args_[step].output;
  op.run(args_[step], state);
  if (!value.outliers.present()) return;
  const auto output = static_cast<std::size_t>(program_.steps[step].output);
  const auto row = static_cast<std::size_t>(program_.buffers[output].row);
  constexpr int kMaxAttempts = 16;
  const QParams before = table.qparams[row];
  int attempts = 0;
  while (attempts < kMaxAttempts && extend_to_fit(value, table.qparams[row])) {
    op.run(args_[step], state);
    ++attempts;
  }
  if (attempts > 0) {
    table.replaced.emplace_back(row, before);
    ++table.widened_bounds[row];
  }
  table.dropped_outliers[row] += value.outliers.dropped();
}

StepOutput Executor::output_of(std::int64_t sample, std::size_t step, const QpTable& table) {
  const int index = program_.steps[step].output;
  const Buffer& buffer = program_.buffers[static_cast<std::size_t>(index)];
  return {
      .sample = sample,
      .step = step,
      .value = buffer.value,
      .data = view(index),
      .qparams = buffer.row < 0 ? QParams{} : table.qparams[static_cast<std::size_t>(buffer.row)]};
}

std::vector<StepInfo> Executor::explain() const {
  std::vector<StepInfo> infos;
  for (const Step& step : program_.steps) {
    StepInfo info{.node = step.node,
                  .op = step.op->kind(),
                  .kernel = step.op->kernel(),
                  .dtype = "",
                  .shape = {},
                  .note = step.note};
    const auto buffer = static_cast<std::size_t>(step.output);
    if (step.output >= 0) info.dtype = name_of(program_.buffers[buffer].dtype);
    if (!prepared_.empty()) {
      info.macs = step.op->macs();
      info.bytes = step.op->weight_bytes();
      for (const int input : step.inputs) info.bytes += buffer_bytes(input);
      if (step.output >= 0) {
        info.shape = shapes_[buffer];
        info.bytes += buffer_bytes(step.output);
      }
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

std::size_t Executor::weight_bytes() const {
  std::size_t bytes = 0;
  for (const Step& step : program_.steps) bytes += step.op->weight_bytes();
  return bytes;
}

}  // namespace qpp
