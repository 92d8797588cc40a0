// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/cores.h"
#include "base/per_process.h"

namespace qpp {

/// Runs one range at a time on a fixed set of threads, including the caller's. A forked child
/// starts its own threads at first use.
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

  /// Its threads stay on `cores`, unless empty; the caller's needs a CoreGuard. Throws Error if the
  /// system starts fewer threads.
  explicit ThreadPool(int threads, const CoreSet& cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] const CoreSet& cores() const { return cores_; }
  [[nodiscard]] int threads() const { return threads_; }

  /// Splits [0, count) into one contiguous part per thread and waits for all of them. The split
  /// depends on `count` and threads() only. The first exception of a part is rethrown. Not
  /// reentrant, and not to be called from two threads at once.
  void parallel_for(std::int64_t count, Task task);

 private:
  class Workers;

  int threads_;
  CoreSet cores_;
  PerProcess<Workers> workers_;
};

}  // namespace qpp
