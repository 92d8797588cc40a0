// SPDX-License-Identifier: Apache-2.0
#include "base/call_lock.h"

#include <chrono>

#include "base/check.h"

namespace qpp {
namespace {

constexpr std::chrono::milliseconds kCheckPeriod{50};

}  // namespace

CallLock::Guard CallLock::acquire(const CheckInterrupt& check_interrupt) {
  State& state = state_.get();
  std::unique_lock lock(state.mutex);
  QPP_CHECK(!state.held || state.owner != std::this_thread::get_id(), Error,
            "expected no call to a session from within another call to it, such as from a signal "
            "handler or a callback; wait until that call has returned");
  const auto is_free = [&state] { return !state.held; };
  if (check_interrupt) {
    while (!state.released.wait_for(lock, kCheckPeriod, is_free)) {
      lock.unlock();
      check_interrupt();
      lock.lock();
    }
  } else {
    state.released.wait(lock, is_free);
  }
  state.held = true;
  state.owner = std::this_thread::get_id();
  return Guard(state);
}

CallLock::Guard::~Guard() {
  {
    const std::lock_guard lock(state_.mutex);
    state_.held = false;
  }
  state_.released.notify_one();
}

}  // namespace qpp
