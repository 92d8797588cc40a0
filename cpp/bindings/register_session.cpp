// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <type_traits>

#include "bindings/gil.h"
#include "bindings/register.h"
#include "network/session.h"

namespace py = pybind11;

namespace qpp {
namespace {

// session.py checks dtype and layout, with better messages; this is a second check.
using FloatArray = py::array_t<float, py::array::c_style>;

Shape shape_of(const FloatArray& array, const char* kind, const std::string& name) {
  QPP_CHECK(array.ndim() == 4, ShapeError, kind, " '", name,
            "': expected 4 dimensions (NCHW), got ", array.ndim());
  return {.batch = array.shape(0),
          .height = array.shape(2),
          .width = array.shape(3),
          .channels = array.shape(1)};
}

std::vector<Session::Input> sources_of(const Session& session,
                                       const std::vector<FloatArray>& arrays) {
  std::vector<Session::Input> inputs;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const std::string name =
        i < session.inputs().size() ? session.inputs()[i].name : std::to_string(i);
    inputs.push_back({.data = arrays[i].data(), .shape = shape_of(arrays[i], "input", name)});
  }
  return inputs;
}

using Sizes = std::array<std::int64_t, 4>;  // NCHW

std::vector<Sizes> prepare(Session& session, const std::vector<Sizes>& shapes) {
  std::vector<Shape> converted;
  for (const auto& [batch, channels, height, width] : shapes)
    converted.push_back({.batch = batch, .height = height, .width = width, .channels = channels});
  const ReleasedGil released;
  std::vector<Sizes> outputs;
  for (const Shape& shape : session.prepare(converted))
    outputs.push_back({shape.batch, shape.channels, shape.height, shape.width});
  return outputs;
}

/// Runs without the GIL. The session's lock is only ever waited for without the GIL, so that the
/// output arrays can be made while it is held. Gives the wanted outputs, in the session's order.
std::vector<FloatArray> run(Session& session, const std::vector<FloatArray>& arrays,
                            const std::set<std::string>& wanted) {
  const std::vector<Session::Input> inputs = sources_of(session, arrays);
  std::vector<FloatArray> outputs;
  {
    InterruptibleRun interruptible;
    const auto place = [&](std::size_t index, const Shape& shape) -> float* {
      if (!wanted.contains(session.outputs()[index])) return nullptr;
      return interruptible.gil().hold([&] {
        return outputs
            .emplace_back(std::vector{shape.batch, shape.channels, shape.height, shape.width})
            .mutable_data();
      });
    };
    session.run(inputs, place, {.check_interrupt = interruptible.check_interrupt()});
  }
  return outputs;
}

/// A copy of the output of a step for one sample, without the padding of channels.
struct ObservedStep {
  std::int64_t sample = 0;
  std::size_t step = 0;
  std::string value;
  DType dtype = DType::f16;
  Shape shape;
  std::vector<std::byte> bytes;
  std::vector<float> residuals;  // of all elements, in steps, of a dense + sparse value; else empty
  float scale = 0;
  std::int32_t zero_point = 0;
};

/// A number for every element, in the order of the elements without padding: zero for all but the
/// outliers.
std::vector<float> residuals_of(const TensorView& view) {
  if (!view.outliers.present()) return {};
  const Shape& shape = view.shape;
  std::vector<float> residuals(static_cast<std::size_t>(shape.pixels() * shape.channels));
  for (std::int64_t y = 0; y < shape.batch * shape.height; ++y) {
    const OutlierRow row = view.outliers.row(y);
    for (std::uint32_t i = row.begins[0]; i < row.begins[shape.width]; ++i) {
      const std::int64_t x = row.positions[i] / shape.stride();
      const std::int64_t channel = row.positions[i] % shape.stride();
      if (channel >= shape.channels) continue;
      const std::int64_t element = (y * shape.width + x) * shape.channels + channel;
      residuals[static_cast<std::size_t>(element)] =
          static_cast<float>(steps_of_residual(row.residuals[i]));
    }
  }
  return residuals;
}

ObservedStep copy(const StepOutput& output) {
  const Shape& shape = output.data.shape;
  const std::size_t size = size_of(output.data.dtype);
  const std::size_t pixel = static_cast<std::size_t>(shape.channels) * size;
  const std::size_t stride = static_cast<std::size_t>(shape.stride()) * size;
  ObservedStep step{
      .sample = output.sample,
      .step = output.step,
      .value = output.value,
      .dtype = output.data.dtype,
      .shape = shape,
      .bytes = std::vector<std::byte>(static_cast<std::size_t>(shape.pixels()) * pixel),
      .residuals = residuals_of(output.data),
      .scale = output.qparams.scale,
      .zero_point = output.qparams.zero_point};
  const auto* src = static_cast<const std::byte*>(output.data.data);
  for (std::size_t p = 0; p < static_cast<std::size_t>(shape.pixels()); ++p)
    std::memcpy(step.bytes.data() + p * pixel, src + p * stride, pixel);
  return step;
}

py::dict to_dict(const ObservedStep& observed) {
  const Shape& shape = observed.shape;
  const std::vector sizes{shape.batch, shape.height, shape.width, shape.channels};
  py::array stored(py::dtype(observed.dtype == DType::f16 ? "float16" : "int8"), sizes);
  std::memcpy(stored.mutable_data(), observed.bytes.data(), observed.bytes.size());
  py::object residuals = py::none();
  if (!observed.residuals.empty()) {
    py::array array(py::dtype("float32"), sizes);
    std::memcpy(array.mutable_data(), observed.residuals.data(),
                observed.residuals.size() * sizeof(float));
    residuals = std::move(array);
  }
  py::dict result;
  result["sample"] = observed.sample;
  result["step"] = observed.step;
  result["value"] = observed.value;
  result["stored"] = stored;
  result["residuals"] = residuals;
  result["scale"] = observed.scale;
  result["zero_point"] = observed.zero_point;
  return result;
}

py::list observe(Session& session, const std::vector<FloatArray>& arrays) {
  const std::vector<Session::Input> inputs = sources_of(session, arrays);
  std::vector<ObservedStep> steps;
  {
    InterruptibleRun interruptible;
    session.run(inputs, [](std::size_t, const Shape&) -> float* { return nullptr; },
                {.observe = [&steps](const StepOutput& output) { steps.push_back(copy(output)); },
                 .check_interrupt = interruptible.check_interrupt()});
  }
  py::list result;
  for (const ObservedStep& step : steps) result.append(to_dict(step));
  return result;
}

/// Writes outputs to arrays, by name.
void run_into(Session& session, const std::vector<FloatArray>& arrays,
              std::map<std::string, FloatArray> outputs) {
  const std::vector<Session::Input> inputs = sources_of(session, arrays);
  std::map<std::string, std::pair<float*, Shape>> targets;
  for (auto& [name, array] : outputs)
    targets[name] = {array.mutable_data(), shape_of(array, "output", name)};
  const auto place = [&](std::size_t index, const Shape& shape) -> float* {
    const std::string& name = session.outputs()[index];
    const auto target = targets.find(name);
    if (target == targets.end()) return nullptr;
    QPP_CHECK(target->second.second == shape, ShapeError, "out: expected shape ", to_string(shape),
              " for output '", name, "', got ", to_string(target->second.second));
    return target->second.first;
  };
  InterruptibleRun interruptible;
  session.run(inputs, place, {.check_interrupt = interruptible.check_interrupt()});
}

/// Nanoseconds of the steady clock, [runs, samples, steps, 2]: begin and end of every step. Outputs
/// are not wanted.
py::array_t<std::int64_t> profile(Session& session, const std::vector<FloatArray>& arrays,
                                  std::size_t runs) {
  const std::vector<Session::Input> inputs = sources_of(session, arrays);
  const auto nowhere = [](std::size_t, const Shape&) -> float* { return nullptr; };
  std::vector<std::vector<StepTime>> times(runs);
  {
    InterruptibleRun interruptible;
    RunHooks hooks{.check_interrupt = interruptible.check_interrupt()};
    session.run(inputs, nowhere, hooks);  // to warm up
    for (auto& run_times : times) {
      hooks.times = &run_times;
      session.run(inputs, nowhere, hooks);
    }
  }
  const auto samples = static_cast<std::size_t>(inputs[0].shape.batch);
  const std::size_t steps = times.empty() ? 0 : times[0].size() / samples;
  py::array_t<std::int64_t> result({runs, samples, steps, std::size_t{2}});
  static_assert(sizeof(StepTime) == 2 * sizeof(std::int64_t));
  std::int64_t* next = result.mutable_data();
  for (const auto& run_times : times) {
    std::memcpy(next, run_times.data(), run_times.size() * sizeof(StepTime));
    next += run_times.size() * 2;
  }
  return result;
}

py::list shape_list(const std::array<std::optional<std::int64_t>, 4>& shape) {
  py::list sizes;
  for (const auto& size : shape) sizes.append(size);
  return sizes;
}

py::dict to_dict(const StepInfo& info) {
  py::dict step;
  step["node"] = info.node;
  step["op"] = info.op;
  step["kernel"] = info.kernel;
  step["dtype"] = info.dtype;
  step["shape"] = info.shape.batch == 0
                      ? py::object(py::none())
                      : py::object(py::make_tuple(info.shape.batch, info.shape.height,
                                                  info.shape.width, info.shape.channels));
  step["macs"] = info.macs;
  step["bytes"] = info.bytes;
  step["note"] = info.note;
  return step;
}

/// Calls without the GIL, for everything that takes the session's lock.
template <typename Call>
auto without_gil(const Call& call) {
  const ReleasedGil released;
  return call();
}

/// [samples, rows, columns] of `count` numbers.
py::array_t<float> to_array(const float* data, std::size_t samples, std::size_t count,
                            std::size_t columns) {
  const std::size_t rows = count == 0 ? 0 : count / samples / columns;
  return py::array_t<float>(std::vector{samples, rows, columns}, data);
}

/// Empty where no option has a value of this type.
std::optional<OptionValue> value_from(const py::handle& object) {
  if (object.is_none()) return OptionValue();
  if (py::isinstance<py::str>(object)) return OptionValue(object.cast<std::string>());
  try {
    if (PyIndex_Check(object.ptr()) != 0) return OptionValue(object.cast<std::int64_t>());
    if (PyNumber_Check(object.ptr()) != 0) return OptionValue(object.cast<double>());
  } catch (const py::cast_error&) {  // of an integer that is too large
    return std::nullopt;
  }
  return std::nullopt;
}

py::object object_from(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> py::object {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>) {
          return py::none();
        } else {
          return py::cast(held);
        }
      },
      value);
}

SessionOptions options_from(const py::kwargs& kwargs) {
  SessionOptions options;
  for (const auto& [key, object] : kwargs) {
    const auto name = key.cast<std::string>();  // GCC 14 warns of a temporary
    const SessionOption& option = find_session_option(name);
    const std::optional<OptionValue> value = value_from(object);
    QPP_CHECK(value && option.set(options, *value), UnsupportedError, option.name, ": expected ",
              expected_type(option), ", got ", py::repr(object).cast<std::string>());
  }
  return options;
}

py::list list_options() {
  py::list rows;
  for (const SessionOption& option : session_options()) {
    py::dict row;
    row["name"] = option.name;
    row["type"] = name_of(option.type);
    row["default"] = object_from(option.default_value());
    row["choices"] = option.choices.empty() ? py::object(py::none()) : py::cast(option.choices);
    const bool is_number = option.type != OptionType::choice;
    row["min"] = is_number ? py::object(py::cast(option.min)) : py::none();
    row["max"] = is_number ? py::object(py::cast(option.max)) : py::none();
    row["help"] = option.help;
    rows.append(row);
  }
  return rows;
}

}  // namespace

void register_session(py::module_& module) {
  module.def("session_options", &list_options);
  py::class_<Session>(module, "Session")
      .def(py::init([](const py::object& source, const LimitMap& limits, const py::kwargs& kwargs) {
             const SessionOptions options = options_from(kwargs);
             const Model model = model_from(source, limits);
             const ReleasedGil released;
             return std::make_unique<Session>(model, options);
           }),
           py::arg("source"), py::kw_only(), py::arg("limits") = LimitMap())
      .def_property_readonly("inputs",
                             [](const Session& session) {
                               py::list inputs;
                               for (const Model::Input& input : session.inputs()) {
                                 inputs.append(py::make_tuple(input.name, shape_list(input.shape)));
                               }
                               return inputs;
                             })
      .def_property_readonly("outputs", &Session::outputs)
      .def("prepare", &prepare, py::arg("shapes"))
      .def("run", &run, py::arg("inputs"), py::arg("wanted"))
      .def("run_into", &run_into, py::arg("inputs"), py::arg("outputs"))
      .def("profile", &profile, py::arg("inputs"), py::arg("runs"))
      .def("observe", &observe, py::arg("inputs"))
      .def("qparams",
           [](const Session& session) {
             const auto bounds = without_gil([&] { return session.bounds(); });
             static_assert(sizeof(Range) == 2 * sizeof(float));
             return to_array(reinterpret_cast<const float*>(bounds.values.data()), bounds.samples,
                             2 * bounds.values.size(), 2);
           })
      .def("features",
           [](const Session& session) {
             const auto features = without_gil([&] { return session.features(); });
             return to_array(features.values.data(), features.samples, features.values.size(),
                             session.feature_columns());
           })
      .def("stats",
           [](const Session& session) {
             const auto stats = without_gil([&] { return session.stats(); });
             const auto by_value = [](const auto& counts) {
               py::dict dict;
               for (const auto& [value, count] : counts) dict[py::str(value)] = count;
               return dict;
             };
             py::dict result;
             result["runs"] = stats.runs;
             result["samples"] = stats.samples;
             result["predictions"] = stats.predictions;
             result["clamped_predictions"] = by_value(stats.clamped_predictions);
             result["widened_bounds"] = by_value(stats.widened_bounds);
             result["dropped_outliers"] = by_value(stats.dropped_outliers);
             return result;
           })
      .def("explain",
           [](const Session& session) {
             const auto steps = without_gil([&] { return session.explain(); });
             py::list result;
             for (const StepInfo& step : steps) result.append(to_dict(step));
             return result;
           })
      .def("memory", [](const Session& session) {
        const auto memory = without_gil([&] { return session.memory(); });
        py::dict result;
        result["weights"] = memory.weights;
        result["arena"] = memory.arena;
        result["peak"] = memory.peak;
        return result;
      });
}

}  // namespace qpp
