// SPDX-License-Identifier: Apache-2.0
//
// The C interface: exceptions become status codes here.

#include "qppengine/qppengine.h"

#include <exception>

#include "network/session.h"

/// The object of a handle.
struct qpp_session {
  qpp::Session session;
};

namespace {

thread_local std::string error_message;

qpp_status fail(qpp_status status, const char* message) noexcept {
  try {
    error_message = message;
  } catch (...) {
    error_message.clear();
  }
  return status;
}

/// Runs `call` and returns its status.
template <typename Call>
qpp_status guard(const Call& call) noexcept {
  try {
    call();
    return QPP_OK;
  } catch (const qpp::ModelError& error) {
    return fail(QPP_ERROR_MODEL, error.what());
  } catch (const qpp::ShapeError& error) {
    return fail(QPP_ERROR_SHAPE, error.what());
  } catch (const qpp::UnsupportedError& error) {
    return fail(QPP_ERROR_UNSUPPORTED, error.what());
  } catch (const qpp::NonFiniteError& error) {
    return fail(QPP_ERROR_NON_FINITE, error.what());
  } catch (const std::exception& error) {
    return fail(QPP_ERROR, error.what());
  } catch (...) {
    return fail(QPP_ERROR, "unknown error");
  }
}

/// `name` may be several parts.
template <typename Pointer, typename... Name>
void expect(const Pointer* pointer, const Name&... name) {
  QPP_CHECK(pointer != nullptr, qpp::Error, name..., ": expected a pointer, got null");
}

template <typename Handle>
auto& session_of(Handle* session) {
  expect(session, "session");
  return session->session;
}

template <typename Element>
const Element& at(const std::vector<Element>& elements, std::size_t index) {
  QPP_CHECK(index < elements.size(), qpp::Error, "index: expected below ", elements.size(),
            ", got ", index);
  return elements[index];
}

qpp::SessionOptions to_options(const qpp_options* options) {
  qpp::SessionOptions converted;
  if (options == nullptr) return converted;
#define QPP_CHOICE(name, default_value, choices, help) \
  if (options->name != nullptr) converted.name = options->name;
#define QPP_OPTIONAL_CHOICE(name, choices, help) \
  if (options->name != nullptr) converted.name = options->name;
#define QPP_INTEGER(name, default_value, min, max, error, help) \
  if (options->name != 0) converted.name = options->name;
#define QPP_OPTIONAL_NUMBER(name, max, help) \
  if (options->name != 0) converted.name = options->name;
#include "network/session_options.inc"
  return converted;
}

qpp::Shape to_shape(const qpp_shape& shape) {
  return {.batch = shape.sizes[0],
          .height = shape.sizes[2],
          .width = shape.sizes[3],
          .channels = shape.sizes[1]};
}

qpp_shape from_shape(const qpp::Shape& shape) {
  return {{shape.batch, shape.channels, shape.height, shape.width}};
}

/// Opens the model that `load` returns.
template <typename Load>
qpp_status open(const Load& load, const qpp_options* options, qpp_session** session) {
  return guard([&] {
    expect(session, "session");
    *session = nullptr;
    *session = new qpp_session{{load(), to_options(options)}};
  });
}

}  // namespace

const char* qpp_version(void) { return QPP_VERSION; }

const char* qpp_error_message(void) { return error_message.c_str(); }

qpp_status qpp_session_open(const char* path, const qpp_options* options, qpp_session** session) {
  const auto load = [&] {
    expect(path, "path");
    return qpp::load_model(path);
  };
  return open(load, options, session);
}

qpp_status qpp_session_open_memory(const void* data, size_t size, const qpp_options* options,
                                   qpp_session** session) {
  const auto load = [&] {
    expect(data, "data");
    return qpp::load_model(std::span(static_cast<const std::byte*>(data), size), "model");
  };
  return open(load, options, session);
}

// NOLINTNEXTLINE(misc-const-correctness): the signature is C's
void qpp_session_close(qpp_session* session) { delete session; }

size_t qpp_session_input_count(const qpp_session* session) {
  std::size_t count = 0;
  guard([&] { count = session_of(session).inputs().size(); });
  return count;
}

size_t qpp_session_output_count(const qpp_session* session) {
  std::size_t count = 0;
  guard([&] { count = session_of(session).outputs().size(); });
  return count;
}

const char* qpp_session_input_name(const qpp_session* session, size_t index) {
  const char* name = nullptr;
  guard([&] { name = at(session_of(session).inputs(), index).name.c_str(); });
  return name;
}

const char* qpp_session_output_name(const qpp_session* session, size_t index) {
  const char* name = nullptr;
  guard([&] { name = at(session_of(session).outputs(), index).c_str(); });
  return name;
}

qpp_status qpp_session_input_shape(const qpp_session* session, size_t index, qpp_shape* shape) {
  return guard([&] {
    const auto& input = at(session_of(session).inputs(), index);
    expect(shape, "shape");
    for (std::size_t i = 0; i < 4; ++i) shape->sizes[i] = input.shape[i].value_or(-1);
  });
}

qpp_status qpp_session_prepare(qpp_session* session, const qpp_shape* input_shapes,
                               qpp_shape* output_shapes) {
  return guard([&] {
    qpp::Session& opened = session_of(session);
    expect(input_shapes, "input_shapes");
    std::vector<qpp::Shape> shapes;
    for (std::size_t i = 0; i < opened.inputs().size(); ++i)
      shapes.push_back(to_shape(input_shapes[i]));
    const std::vector<qpp::Shape> outputs = opened.prepare(shapes);
    if (output_shapes == nullptr) return;
    for (std::size_t i = 0; i < outputs.size(); ++i) output_shapes[i] = from_shape(outputs[i]);
  });
}

qpp_status qpp_session_run(qpp_session* session, const float* const* inputs,
                           const qpp_shape* input_shapes, float* const* outputs) {
  return guard([&] {
    qpp::Session& opened = session_of(session);
    expect(inputs, "inputs");
    expect(input_shapes, "input_shapes");
    expect(outputs, "outputs");
    std::vector<qpp::Session::Input> sources;
    for (std::size_t i = 0; i < opened.inputs().size(); ++i) {
      expect(inputs[i], "inputs[", i, "]");
      sources.push_back({.data = inputs[i], .shape = to_shape(input_shapes[i])});
    }
    opened.run(sources, [&](std::size_t index, const qpp::Shape&) { return outputs[index]; });
  });
}
