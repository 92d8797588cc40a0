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

/// Serializes the calls of an object. Unlike a mutex it is free in a forked child, whoever held it
/// in the parent, and a call from within another one of the same thread is an error.
class CallLock {
  /// As a mutex that a thread holds for the whole call could not be waited for with interruptions.
  struct State {
    std::mutex mutex;
    std::condition_variable released;
    bool held = false;
    std::thread::id owner;
  };

 public:
  /// Holds the lock as long as it lives.
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

  /// Waits until no other thread holds the lock, and calls `check_interrupt`, unless empty,
  /// meanwhile. Throws Error if this thread holds it already.
  [[nodiscard]] Guard acquire(const CheckInterrupt& check_interrupt = {});

 private:
  PerProcess<State> state_;
};

}  // namespace qpp
