// SPDX-License-Identifier: Apache-2.0
#include "network/executor.h"

#include <algorithm>
#include <utility>

#include "network/planner.h"
#include "ops/layout.h"

namespace qpp {

Executor::Executor(Program program, int threads) : program_(std::move(program)), pool_(threads) {}

void Executor::prepare(const std::vector<Shape>& inputs) {
  if (inputs == prepared_) return;
  prepared_.clear();  // stays empty if anything below throws
  const std::vector<Step>& steps = program_.steps;
  const int end = static_cast<int>(steps.size());

  shapes_.assign(program_.buffers.size(), Shape{});
  std::vector<Lifetime> blocks(program_.buffers.size());
  const auto touch = [&](int buffer, int step) {
    Lifetime& block = blocks[static_cast<std::size_t>(buffer)];
    block.last = std::max(block.last, step);
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes_[static_cast<std::size_t>(program_.inputs[i])] = inputs[i];
    touch(program_.inputs[i], 0);
  }
  for (int s = 0; s < end; ++s) {
    const Step& step = steps[static_cast<std::size_t>(s)];
    std::vector<Shape> input_shapes;
    for (const int buffer : step.inputs) {
      input_shapes.push_back(shapes_[static_cast<std::size_t>(buffer)]);
      touch(buffer, s);
    }
    const Shape output = step.op->prepare(input_shapes, pool_.threads());
    if (step.output >= 0) {
      shapes_[static_cast<std::size_t>(step.output)] = output;
      blocks[static_cast<std::size_t>(step.output)].first = s;
      touch(step.output, s);
    }
    blocks.push_back({.bytes = step.op->scratch_bytes(), .first = s, .last = s});
  }
  for (const int buffer : program_.outputs) touch(buffer, end);
  for (std::size_t b = 0; b < shapes_.size(); ++b) {
    blocks[b].bytes =
        static_cast<std::size_t>(shapes_[b].elements()) * size_of(program_.buffers[b].dtype);
  }

  MemoryPlan plan = plan_memory(blocks);
  arena_ = {};  // the old arena goes before the new one comes
  arena_.resize(plan.bytes);
  offsets_ = std::move(plan.offsets);

  // The operations' arguments point into the arena and do not change from run to run.
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
  prepared_ = inputs;
}

TensorView Executor::view(int buffer) {
  const auto index = static_cast<std::size_t>(buffer);
  return {.data = arena_.data() + offsets_[index],
          .dtype = program_.buffers[index].dtype,
          .shape = shapes_[index]};
}

const Shape& Executor::output_shape(std::size_t index) const {
  return shapes_[static_cast<std::size_t>(program_.outputs[index])];
}

void Executor::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                   QpTable& table, bool check_finite) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool finite = import_nchw(inputs[i], view(program_.inputs[i]), pool_);
    QPP_CHECK(finite || !check_finite, NonFiniteError, "input '",
              program_.buffers[static_cast<std::size_t>(program_.inputs[i])].value,
              "': expected finite numbers within fp16 (magnitude up to 65504), got NaN, infinity "
              "or larger");
  }
  RunState state = table.state(pool_);
  for (std::size_t s = 0; s < args_.size(); ++s) program_.steps[s].op->run(args_[s], state);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    export_nchw(view(program_.outputs[i]), outputs[i], pool_);
}

std::vector<StepInfo> Executor::explain() const {
  std::vector<StepInfo> infos;
  for (const Step& step : program_.steps) {
    StepInfo info{.node = step.node,
                  .op = step.op->kind(),
                  .kernel = step.op->kernel(),
                  .dtype = "",
                  .shape = {}};
    if (step.output >= 0) {
      const auto buffer = static_cast<std::size_t>(step.output);
      info.dtype = name_of(program_.buffers[buffer].dtype);
      if (!prepared_.empty()) info.shape = shapes_[buffer];
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
