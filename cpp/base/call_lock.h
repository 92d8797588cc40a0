// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/per_process.h"

namespace qpp {

/// Called repeatedly during a long wait or run, which ends if it throws.
using CheckInterrupt = std::function<void()>;

/// Serializes the calls of an object. Unlike a mutex, it is free in a forked child, and a nested
/// call of the same thread is an error.
class CallLock {
  /// No thread holds the mutex during a call, so that others can interrupt their wait for it.
  struct State {
    std::mutex mutex;
    std::condition_variable released;
    bool held = false;
    std::thread::id owner;
  };

 public:
  /// Holds the lock during its lifetime.
  class Guard {
   public:
    explicit Guard(State& state) : state_(state) {}
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    State& state_;
  };

  CallLock() { state_.get(); }

  /// Waits until no other thread holds the lock; during the wait, calls `check_interrupt` unless
  /// it is empty. Throws Error if this thread already holds the lock.
  [[nodiscard]] Guard acquire(const CheckInterrupt& check_interrupt = {});

 private:
  PerProcess<State> state_;
};

}  // namespace qpp
