// SPDX-License-Identifier: Apache-2.0
//
// The C interface: exceptions become status codes here.

#include "qppengine/qppengine.h"

#include "network/session.h"

/// What is behind the handle.
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

/// Runs `call` and tells how it ended.
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

template <typename Pointer>
void expect(const Pointer* pointer, const char* name) {
  QPP_CHECK(pointer != nullptr, qpp::Error, name, ": expected a pointer, got null");
}

qpp::SessionOptions to_options(const qpp_options* options) {
  qpp::SessionOptions converted;
  if (options == nullptr) return converted;
  if (options->scheme != nullptr) converted.scheme = options->scheme;
  if (options->algorithm != nullptr) converted.algorithm = options->algorithm;
  if (options->skip != nullptr) converted.skip = options->skip;
  if (options->cores != nullptr) converted.cores = options->cores;
  if (options->static_bounds != nullptr) converted.static_bounds = options->static_bounds;
  if (options->activation_bits != 0) converted.activation_bits = options->activation_bits;
  if (options->threads != 0) converted.threads = options->threads;
  if (options->density != 0) converted.density = options->density;
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

}  // namespace

const char* qpp_version(void) { return QPP_VERSION; }

const char* qpp_error_message(void) { return error_message.c_str(); }

qpp_status qpp_session_open(const char* path, const qpp_options* options, qpp_session** session) {
  return guard([&] {
    expect(path, "path");
    expect(session, "session");
    *session = new qpp_session{{qpp::load_model(path), to_options(options)}};
  });
}

qpp_status qpp_session_open_memory(const void* data, size_t size, const qpp_options* options,
                                   qpp_session** session) {
  return guard([&] {
    expect(data, "data");
    expect(session, "session");
    const std::span bytes(static_cast<const std::byte*>(data), size);
    *session = new qpp_session{{qpp::load_model(bytes, "model"), to_options(options)}};
  });
}

// NOLINTNEXTLINE(misc-const-correctness): the signature is C's
void qpp_session_close(qpp_session* session) { delete session; }

size_t qpp_session_input_count(const qpp_session* session) {
  return session->session.inputs().size();
}

size_t qpp_session_output_count(const qpp_session* session) {
  return session->session.outputs().size();
}

const char* qpp_session_input_name(const qpp_session* session, size_t index) {
  const auto& inputs = session->session.inputs();
  return index < inputs.size() ? inputs[index].name.c_str() : nullptr;
}

const char* qpp_session_output_name(const qpp_session* session, size_t index) {
  const auto& outputs = session->session.outputs();
  return index < outputs.size() ? outputs[index].c_str() : nullptr;
}

qpp_status qpp_session_input_shape(const qpp_session* session, size_t index, qpp_shape* shape) {
  return guard([&] {
    const auto& inputs = session->session.inputs();
    expect(shape, "shape");
    QPP_CHECK(index < inputs.size(), qpp::Error, "index: expected below ", inputs.size(), ", got ",
              index);
    for (std::size_t i = 0; i < 4; ++i) shape->sizes[i] = inputs[index].shape[i].value_or(-1);
  });
}

qpp_status qpp_session_prepare(qpp_session* session, const qpp_shape* input_shapes,
                               qpp_shape* output_shapes) {
  return guard([&] {
    expect(input_shapes, "input_shapes");
    std::vector<qpp::Shape> shapes;
    for (std::size_t i = 0; i < session->session.inputs().size(); ++i)
      shapes.push_back(to_shape(input_shapes[i]));
    const std::vector<qpp::Shape> outputs = session->session.prepare(shapes);
    if (output_shapes == nullptr) return;
    for (std::size_t i = 0; i < outputs.size(); ++i) output_shapes[i] = from_shape(outputs[i]);
  });
}

qpp_status qpp_session_run(qpp_session* session, const float* const* inputs,
                           const qpp_shape* input_shapes, float* const* outputs) {
  return guard([&] {
    expect(inputs, "inputs");
    expect(input_shapes, "input_shapes");
    expect(outputs, "outputs");
    std::vector<qpp::Session::Input> sources;
    for (std::size_t i = 0; i < session->session.inputs().size(); ++i) {
      expect(inputs[i], "inputs");
      sources.push_back({.data = inputs[i], .shape = to_shape(input_shapes[i])});
    }
    session->session.run(sources,
                         [&](std::size_t index, const qpp::Shape&) { return outputs[index]; });
  });
}
