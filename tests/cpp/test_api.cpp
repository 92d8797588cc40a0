// SPDX-License-Identifier: Apache-2.0
//
// The C and C++ interfaces: every wrong argument is an error with a message, none a crash.

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <fstream>
#include <thread>
#include <utility>

#include "qppengine/qppengine.hpp"
#include "support.h"

namespace qpp {
namespace {

std::string write_model(const test::Folder& folder) {
  const std::vector<std::byte> bytes = test::small_network().bytes();
  const std::string path = folder.path() + "/small.qpp";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return path;
}

bool message_has(const std::string& part) {
  return std::string(qpp_error_message()).find(part) != std::string::npos;
}

const qpp_shape kShape = {{1, 1, 5, 6}};

}  // namespace

TEST_CASE("C: a null session is an error of every function") {
  const float number = 0;
  const float* input = &number;
  const std::array<float*, 1> outputs{};
  qpp_shape shape{};
  CHECK(qpp_session_input_count(nullptr) == 0);
  CHECK(message_has("session: expected a pointer, got null"));
  CHECK(qpp_session_output_count(nullptr) == 0);
  CHECK(qpp_session_input_name(nullptr, 0) == nullptr);
  CHECK(qpp_session_output_name(nullptr, 0) == nullptr);
  CHECK(qpp_session_input_shape(nullptr, 0, &shape) == QPP_ERROR);
  CHECK(qpp_session_prepare(nullptr, &kShape, &shape) == QPP_ERROR);
  CHECK(qpp_session_run(nullptr, &input, &kShape, outputs.data()) == QPP_ERROR);
  CHECK(message_has("session: expected a pointer, got null"));
  qpp_session_close(nullptr);
}

TEST_CASE("C: other null pointers and indices out of range are errors") {
  const test::Folder folder;
  const std::string path = write_model(folder);
  int other = 0;
  auto* session = reinterpret_cast<qpp_session*>(&other);  // to be overwritten
  CHECK(qpp_session_open(nullptr, nullptr, &session) == QPP_ERROR);
  CHECK(message_has("path: expected a pointer, got null"));
  CHECK(session == nullptr);
  CHECK(qpp_session_open_memory(nullptr, 8, nullptr, &session) == QPP_ERROR);
  CHECK(message_has("data: expected a pointer, got null"));
  CHECK(qpp_session_open(path.c_str(), nullptr, nullptr) == QPP_ERROR);
  CHECK(qpp_session_open_memory(path.c_str(), 1, nullptr, nullptr) == QPP_ERROR);
  CHECK(message_has("session: expected a pointer, got null"));
  qpp_options options{};
  options.threads = -1;
  CHECK(qpp_session_open(path.c_str(), &options, &session) == QPP_ERROR);
  CHECK(message_has("threads: expected 1 to 256, got -1"));

  REQUIRE(qpp_session_open(path.c_str(), nullptr, &session) == QPP_OK);
  CHECK(qpp_session_input_count(session) == 1);
  CHECK(qpp_session_input_name(session, 0) == std::string("x"));
  CHECK(qpp_session_input_name(session, 1) == nullptr);
  CHECK(message_has("index: expected below 1, got 1"));
  CHECK(qpp_session_output_name(session, 1000) == nullptr);
  qpp_shape shape{};
  CHECK(qpp_session_input_shape(session, 1, &shape) == QPP_ERROR);
  CHECK(qpp_session_input_shape(session, 0, nullptr) == QPP_ERROR);
  CHECK(message_has("shape: expected a pointer, got null"));
  CHECK(qpp_session_prepare(session, nullptr, &shape) == QPP_ERROR);
  CHECK(message_has("input_shapes: expected a pointer, got null"));
  CHECK(qpp_session_prepare(session, &kShape, nullptr) == QPP_OK);

  const std::vector<float> image(30);
  const float* input = image.data();
  const float* no_input = nullptr;
  const std::array<float*, 1> outputs{};  // null: is not written
  CHECK(qpp_session_run(session, nullptr, &kShape, outputs.data()) == QPP_ERROR);
  CHECK(message_has("inputs: expected a pointer, got null"));
  CHECK(qpp_session_run(session, &no_input, &kShape, outputs.data()) == QPP_ERROR);
  CHECK(message_has("inputs[0]: expected a pointer, got null"));
  CHECK(qpp_session_run(session, &input, nullptr, outputs.data()) == QPP_ERROR);
  CHECK(qpp_session_run(session, &input, &kShape, nullptr) == QPP_ERROR);
  CHECK(message_has("outputs: expected a pointer, got null"));
  CHECK(qpp_session_run(session, &input, &kShape, outputs.data()) == QPP_OK);
  for (const qpp_shape& wrong :
       {qpp_shape{{0, 1, 5, 6}}, qpp_shape{{1, 1, -5, 6}},
        qpp_shape{{INT64_MAX, 1, INT64_MAX, INT64_MAX}}, qpp_shape{{1, 1, INT64_MAX, 2}}}) {
    CHECK(qpp_session_prepare(session, &wrong, &shape) == QPP_ERROR_SHAPE);
    CHECK(qpp_session_run(session, &input, &wrong, outputs.data()) == QPP_ERROR_SHAPE);
  }
  CHECK(qpp_session_run(session, &input, &kShape, outputs.data()) == QPP_OK);
  qpp_session_close(session);
}

TEST_CASE("C: a path that is not a regular file is named and not opened") {
  const test::Folder folder;
  folder.write("empty.qpp", "");
  const std::string pipe = folder.path() + "/pipe.qpp";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  const std::pair<std::string, std::string> cases[] = {
      {folder.path(), "Is a directory"},
      {folder.path() + "/none.qpp", "No such file or directory"},
      {folder.path() + "/empty.qpp/a.qpp", "Not a directory"},
      {folder.path() + "/empty.qpp", "got 0 bytes"},
      {pipe, "expected a regular file"},
      {"/dev/zero", "expected a regular file"},
      {"", "No such file or directory"}};
  for (const auto& [path, problem] : cases) {
    CAPTURE(path);
    qpp_session* session = nullptr;
    CHECK(qpp_session_open(path.c_str(), nullptr, &session) == QPP_ERROR_MODEL);
    CAPTURE(qpp_error_message());
    CHECK(message_has(problem));
    CHECK(message_has(path));
    CHECK(session == nullptr);
  }
}

TEST_CASE("C: every thread has an error message of its own") {
  CHECK(qpp_session_input_count(nullptr) == 0);
  const std::string before = qpp_error_message();
  std::thread([] {
    CHECK(std::string(qpp_error_message()).empty());
    qpp_session* session = nullptr;
    CHECK(qpp_session_open("none.qpp", nullptr, &session) == QPP_ERROR_MODEL);
    CHECK(message_has("none.qpp"));
  }).join();
  CHECK(qpp_error_message() == before);
}

TEST_CASE("C++: a session that was moved from throws, and may be assigned to") {
  const test::Folder folder;
  const std::string path = write_model(folder);
  qppengine::Session first(path);
  qppengine::Session second(std::move(first));
  const qppengine::Shape shape{1, 1, 5, 6};
  // NOLINTBEGIN(bugprone-use-after-move): this is the test
  const auto throws = [&](const auto& call) {
    CHECK_THROWS_WITH_AS(call(), doctest::Contains("moved from"), qppengine::Error);
  };
  throws([&] { static_cast<void>(first.inputs()); });
  throws([&] { static_cast<void>(first.outputs()); });
  throws([&] { static_cast<void>(first.input_shape(0)); });
  throws([&] { first.prepare({shape}); });
  throws([&] { first.run({{shape, std::vector<float>(30)}}); });
  CHECK(first.get() == nullptr);
  first = std::move(second);
  CHECK(first.outputs().size() == 1);
  qppengine::Session& same = first;
  first = std::move(same);
  CHECK(first.run({{shape, std::vector<float>(30)}}).size() == 1);
  // NOLINTEND(bugprone-use-after-move)
}

TEST_CASE("C++: numbers of inputs and sizes that do not fit are errors") {
  const test::Folder folder;
  qppengine::Session session(write_model(folder));
  const qppengine::Shape shape{1, 1, 5, 6};
  CHECK_THROWS_WITH_AS(session.run({}), "expected 1 inputs, got 0", qppengine::Error);
  CHECK_THROWS_AS(session.prepare({shape, shape}), qppengine::Error);
  CHECK_THROWS_AS(static_cast<void>(session.input_shape(1)), qppengine::Error);
  const std::int64_t large = std::int64_t{1} << 32;
  for (const qppengine::Shape& wrong :
       {qppengine::Shape{large, large, 1, 1}, qppengine::Shape{-1, -1, 5, 6},
        qppengine::Shape{0, 1, 5, 6}, qppengine::Shape{1, 1, 5, 7}}) {
    CHECK_THROWS_AS(session.run({{wrong, std::vector<float>(30)}}), qppengine::Error);
    CHECK_THROWS_AS(session.run({{wrong, {}}}), qppengine::Error);
  }
}

}  // namespace qpp
