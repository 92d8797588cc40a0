// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/cores.h"

namespace qpp {

/// Runs one range at a time on a fixed set of threads, the caller's among them.
class ThreadPool {
 public:
  /// A reference to a callable `task(begin, end, thread)` that outlives the call; `thread` is 0 ..
  /// threads()-1. Unlike std::function it never allocates.
  class Task {
   public:
    template <typename Callable>
    // NOLINTNEXTLINE(google-explicit-constructor): lambdas are passed as they are
    Task(const Callable& callable)
        : callable_(&callable),
          call_([](const void* object, std::int64_t begin, std::int64_t end, int thread) {
            (*static_cast<const Callable*>(object))(begin, end, thread);
          }) {}
    void operator()(std::int64_t begin, std::int64_t end, int thread) const {
      call_(callable_, begin, end, thread);
    }

   private:
    const void* callable_;
    void (*call_)(const void*, std::int64_t, std::int64_t, int);
  };

  /// Its own threads stay on `cores`, if any are given; the caller is kept there by a CoreGuard.
  explicit ThreadPool(int threads, const CoreSet& cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] const CoreSet& cores() const { return cores_; }
  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Splits [0, count) into one contiguous part per thread and waits for all of them. The split
  /// depends on `count` and threads() only. The first exception of a part is rethrown. Not
  /// reentrant.
  void parallel_for(std::int64_t count, Task task);

 private:
  void work(int thread);
  void run_part(int thread);

  CoreSet cores_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const Task* task_ = nullptr;
  std::int64_t count_ = 0;
  std::uint64_t generation_ = 0;
  int running_ = 0;
  bool stopping_ = false;
  std::exception_ptr failure_;
};

}  // namespace qpp
