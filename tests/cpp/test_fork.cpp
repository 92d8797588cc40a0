// SPDX-License-Identifier: Apache-2.0
//
// Forked children use objects of their parent, whatever its threads did at that moment.

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <exception>
#include <thread>
#include <vector>

#include "base/call_lock.h"
#include "base/cpu.h"
#include "base/thread_pool.h"
#include "network/session.h"
#include "support.h"

// ThreadSanitizer ends children that start threads.
#if !defined(__SANITIZE_THREAD__)

namespace qpp {
namespace {

/// QEMU's user mode aborts when a forked child starts threads.
std::vector<int> thread_counts() { return is_emulated() ? std::vector{1} : std::vector{1, 2, 3}; }

/// Runs `call` in a forked child and returns whether it was true. A child that hangs is ended.
template <typename Call>
bool in_child(const Call& call) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    bool good = false;
    try {
      good = call();
    } catch (const std::exception&) {
      good = false;
    }
    _exit(good ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool sums_all(ThreadPool& pool) {
  std::atomic<std::int64_t> sum = 0;
  std::atomic<int> threads = 0;
  pool.parallel_for(1000, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) sum += i;
    ++threads;
  });
  return sum == 499500 && threads == pool.threads();
}

std::vector<float> run(Session& session, const std::vector<float>& image, const Shape& shape,
                       const ObserveStep& observe = {}) {
  std::vector<float> result;
  const auto place = [&](std::size_t, const Shape& output) {
    result.resize(static_cast<std::size_t>(output.pixels() * output.channels));
    return result.data();
  };
  session.run({{.data = image.data(), .shape = shape}}, place, {.observe = observe});
  return result;
}

}  // namespace

TEST_CASE("the thread pool of a forked child starts threads of its own") {
  for (const int threads : thread_counts()) {
    CAPTURE(threads);
    for (const bool used : {false, true}) {
      auto pool = std::make_unique<ThreadPool>(threads);
      if (used) CHECK(sums_all(*pool));
      CHECK(in_child([&] {
        pool.reset();  // the parent's threads are not there to be joined
        return true;
      }));
      CHECK(in_child([&] {
        const bool good = sums_all(*pool) && in_child([&] { return sums_all(*pool); });
        pool.reset();
        return good;
      }));
      CHECK(sums_all(*pool));
    }
  }
}

TEST_CASE("a fork while the pool works leaves a pool that works to both") {
  for (const int threads : thread_counts()) {
    CAPTURE(threads);
    auto pool = std::make_unique<ThreadPool>(threads);
    std::atomic<bool> stop = false;
    std::thread user([&] {
      while (!stop) CHECK(sums_all(*pool));
    });
    for (int i = 0; i < 20; ++i) {
      CHECK(in_child([&] {
        const bool good = sums_all(*pool);
        pool.reset();
        return good;
      }));
    }
    stop = true;
    user.join();
  }
}

TEST_CASE("a session that another thread runs at the time of a fork runs in the child") {
  const Model model = load_model(test::small_network().bytes(), "test");
  const Shape shape{1, 11, 13, 1};
  const std::vector<float> image = test::Random(3).list(shape.pixels(), 0.5F);
  for (const char* scheme : {"fp16", "static", "dynamic", "qpp"}) {
    for (const int threads : thread_counts()) {
      CAPTURE(scheme);
      CAPTURE(threads);
      SessionOptions options;
      options.scheme = scheme;
      options.threads = threads;
      auto session = std::make_unique<Session>(model, options);
      const std::vector<float> expected = run(*session, image, shape);
      std::atomic<int> step = 0;
      std::atomic<bool> go_on = false;
      std::thread user([&] {
        const auto wait = [&](const StepOutput&) {
          if (++step != 2) return;
          while (!go_on) std::this_thread::yield();
        };
        CHECK(run(*session, image, shape, wait) == expected);
      });
      while (step < 2) std::this_thread::yield();
      CHECK(in_child([&] {
        static_cast<void>(session->stats());
        const bool good = run(*session, image, shape) == expected;
        session.reset();
        return good;
      }));
      go_on = true;
      user.join();
      CHECK(run(*session, image, shape) == expected);
    }
  }
}

}  // namespace qpp

#endif
