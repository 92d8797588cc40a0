// SPDX-License-Identifier: Apache-2.0
#include "network/session.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <new>

#include "ops/conv_algorithm.h"

namespace qpp {
namespace {

/// Throws UnsupportedError.
CoreSet choose_cores(const SessionOptions& options) {
  if (options.cores == "all") return {};
  const CoreSet cores = fastest_cores(allowed_cores());
  const int count = static_cast<int>(cores.count());
  QPP_CHECK(cores.none() || options.threads <= count, UnsupportedError, "threads: expected 1 to ",
            count, " on the big cores of this machine, got ", options.threads);
  const CoreGuard guard(cores);  // a container may forbid it
  QPP_CHECK(cores.none() || allowed_cores() == cores, UnsupportedError,
            "cores: the system does not let this process choose its cores; use \"all\"");
  return cores;
}

const Scheme& scheme_of(const SessionOptions& options) {
  check_options(options);
  return find_scheme(options.scheme);
}

std::unique_ptr<QParamsSource> make_source(const Model& model, const SessionOptions& options,
                                           const Scheme& scheme) {
  check_options(options);
  auto source = scheme.make_source(model, options);
  if (source) require_quantization(model);
  QPP_CHECK(!options.density || (source && source->quantizes()), UnsupportedError,
            "density: expected a scheme that quantizes, got \"", scheme.name, "\"");
  return source;
}

Executor make_executor(const Model& model, const SessionOptions& options,
                       const QParamsSource* source) {
  const std::string residual_dtype =
      options.residual_dtype.value_or(source != nullptr && source->stores_fp16() ? "fp16" : "int8");
  return {
      lower(model,
            {.source = source,
             .algorithm = parse_algorithm(options.algorithm),
             .residual_dtype = residual_dtype == "fp16" ? ResidualDType::fp16 : ResidualDType::int8,
             .dense_sparse = options.density.has_value()},
            KernelSelection::from_environment()),
      options.threads, choose_cores(options)};
}

QpTable make_table(const Model& model, const QParamsSource* source,
                   const std::vector<int>& copied_rows) {
  if (!model.quantization) return {0, 0};
  const Quantization& quantization = *model.quantization;
  const std::size_t tables = source == nullptr ? 1 : source->table_count();
  const std::size_t columns = quantization.feature_columns();
  QpTable table(tables * quantization.values.size(), quantization.predictors.size() * columns,
                copied_rows);
  table.value_names = quantization.values;
  for (std::size_t p = 0; p < quantization.predictors.size(); ++p) {
    for (std::size_t i = quantization.predictors[p].features.size(); i < columns; ++i)
      table.features[p * columns + i] = NAN;
  }
  if (source != nullptr) source->fill_rows(table);
  return table;
}

std::string describe(const Model::Input& input) {
  std::string text;
  for (const auto& size : input.shape) {
    if (!text.empty()) text += ", ";
    text += size ? std::to_string(*size) : "any";
  }
  return text;
}

void check_shape(const Model::Input& expected, const Shape& shape) {
  const std::array<std::int64_t, 4> sizes{shape.batch, shape.channels, shape.height, shape.width};
  const bool fits = std::equal(sizes.begin(), sizes.end(), expected.shape.begin(),
                               [](std::int64_t size, const auto& wanted) {
                                 return size >= 1 && wanted.value_or(size) == size;
                               });
  QPP_CHECK(fits, ShapeError, "input '", expected.name, "': expected shape [", describe(expected),
            "], got ", to_string(shape));
}

/// Elements of a float array of this shape.
std::int64_t count_of(const Shape& shape) { return shape.pixels() * shape.channels; }

}  // namespace

Session::Session(const Model& model, const SessionOptions& options)
    : Session(model, options, scheme_of(options)) {}

Session::Session(const Model& model, const SessionOptions& options, const Scheme& scheme)
    : inputs_(model.inputs),
      outputs_(model.outputs),
      value_elements_(model.limits.value_elements),
      source_(make_source(model, options, scheme)),
      dense_sparse_(options.density.has_value()),
      executor_(make_executor(model, options, source_.get())),
      table_(make_table(model, source_.get(), executor_.copied_rows())),
      shapes_(inputs_.size()),
      sample_shapes_(inputs_.size()),
      sources_(inputs_.size()),
      targets_(outputs_.size()),
      sample_sources_(inputs_.size()),
      sample_targets_(outputs_.size()) {
  if (model.quantization) feature_columns_ = model.quantization->feature_columns();
}

void Session::check_input_count(std::size_t count) const {
  QPP_CHECK(count == inputs_.size(), ShapeError, "expected ", inputs_.size(), " inputs, got ",
            count);
}

void Session::lay_out() {
  if (shapes_ == laid_out_) return;
  QPP_CHECK(!laying_out_, Error,
            "the session was laying out memory in another thread when the process was forked; open "
            "a new session in the child");
  struct Flag {
    explicit Flag(std::atomic<bool>& flag) : flag_(flag) { flag_ = true; }
    ~Flag() { flag_ = false; }
    Flag(const Flag&) = delete;
    Flag& operator=(const Flag&) = delete;
    std::atomic<bool>& flag_;
  } const laying_out(laying_out_);
  laid_out_.clear();  // stays empty if anything below throws
  const std::int64_t batch = shapes_[0].batch;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    check_shape(inputs_[i], shapes_[i]);
    check_size(inputs_[i].name, shapes_[i], value_elements_);
    QPP_CHECK(shapes_[i].batch == batch, ShapeError, "expected inputs of one batch size, got ",
              batch, " of '", inputs_[0].name, "' and ", shapes_[i].batch, " of '", inputs_[i].name,
              "'");
    sample_shapes_[i] = shapes_[i];
    sample_shapes_[i].batch = 1;
  }
  executor_.prepare(sample_shapes_);
  batch_ = batch;
  for (std::size_t i = 0; i < outputs_.size(); ++i)
    check_size(outputs_[i], output_shape(i), value_elements_);
  try {
    bounds_.values.reserve(static_cast<std::size_t>(batch) * table_.values);
    features_.values.reserve(static_cast<std::size_t>(batch) * table_.features.size());
  } catch (const std::bad_alloc&) {
    throw Error(concat("the bounds of a batch of ", batch, " do not fit into memory"));
  }
  laid_out_ = shapes_;
}

Shape Session::output_shape(std::size_t index) const {
  Shape shape = executor_.output_shape(index);
  shape.batch = batch_;
  return shape;
}

std::vector<Shape> Session::prepare(const std::vector<Shape>& shapes) {
  const CallLock::Guard lock = lock_.acquire();
  check_input_count(shapes.size());
  shapes_ = shapes;
  lay_out();
  std::vector<Shape> outputs;
  for (std::size_t i = 0; i < outputs_.size(); ++i) outputs.push_back(output_shape(i));
  return outputs;
}

void Session::run(const std::vector<Input>& inputs, const OutputAllocator& place,
                  const RunHooks& hooks) {
  const CallLock::Guard lock = lock_.acquire(hooks.check_interrupt);
  check_input_count(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes_[i] = inputs[i].shape;
    sources_[i] = inputs[i].data;
  }
  lay_out();
  for (std::size_t i = 0; i < targets_.size(); ++i) targets_[i] = place(i, output_shape(i));
  if (hooks.times != nullptr)
    hooks.times->resize(static_cast<std::size_t>(batch_) * executor_.step_count());
  bounds_.samples = features_.samples = 0;
  bounds_.values.clear();
  features_.values.clear();
  for (std::int64_t sample = 0; sample < batch_; ++sample) {
    try {
      run_sample(sample, hooks);
    } catch (const NonFiniteError& error) {
      if (batch_ == 1) throw;
      throw NonFiniteError(concat("sample ", sample, ": ", error.what()));
    }
  }
  ++runs_;
}

void Session::run_sample(std::int64_t sample, const RunHooks& hooks) {
  for (std::size_t i = 0; i < sources_.size(); ++i)
    sample_sources_[i] = sources_[i] + sample * count_of(sample_shapes_[i]);
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    float* target = targets_[i];
    sample_targets_[i] =
        target == nullptr ? nullptr : target + sample * count_of(executor_.output_shape(i));
  }
  executor_.run(sample_sources_, sample_targets_, table_,
                /*check_finite=*/source_ != nullptr, hooks, sample);
  for (std::size_t row = 0; row < table_.values; ++row)
    bounds_.values.push_back({.lo = table_.qparams[row].lo, .hi = table_.qparams[row].hi});
  features_.values.insert(features_.values.end(), table_.features.begin(), table_.features.end());
  ++bounds_.samples;
  ++features_.samples;
  ++samples_;
}

SessionStats Session::stats() const {
  const CallLock::Guard lock = lock_.acquire();
  SessionStats stats;
  stats.runs = runs_;
  stats.samples = samples_;
  if (dense_sparse_) stats.dropped_outliers = table_.by_value(table_.dropped_outliers);
  if (source_ != nullptr) {
    if (source_->quantizes()) stats.widened_bounds = table_.by_value(table_.widened_bounds);
    source_->report(table_, stats);
  }
  return stats;
}

PerSample<Range> Session::bounds() const {
  const CallLock::Guard lock = lock_.acquire();
  return bounds_;
}

PerSample<float> Session::features() const {
  const CallLock::Guard lock = lock_.acquire();
  return features_;
}

std::vector<StepInfo> Session::explain() const {
  const CallLock::Guard lock = lock_.acquire();
  std::vector<StepInfo> steps = executor_.explain();
  for (StepInfo& step : steps) {  // of one sample, or zeros before anything is prepared
    step.shape.batch *= batch_;
    step.macs *= batch_;
    step.bytes *= static_cast<std::size_t>(batch_);
  }
  return steps;
}

SessionMemory Session::memory() const {
  const CallLock::Guard lock = lock_.acquire();
  return {.weights = executor_.weight_bytes(),
          .arena = executor_.arena_bytes(),
          .peak = executor_.peak_bytes()};
}

}  // namespace qpp
