// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <chrono>

#include "base/call_lock.h"

namespace qpp {

/// Releases the GIL for as long as it lives.
///
/// When Python exits, its versions up to 3.13 end the daemon threads that ask for the GIL by
/// pthread_exit(). That unwinds the C++ frames of the thread, where it aborts the process or
/// releases Python objects without the GIL. Such a thread waits here for the end of the process
/// instead, as Python 3.14 itself does.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() { take_back(); }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

  /// Runs `call` with the GIL held, and returns its result.
  template <typename Call>
  auto hold(const Call& call) {
    take_back();
    const Released again(state_);
    return call();
  }

 private:
  struct Released {
    explicit Released(PyThreadState*& state) : state_(state) {}
    ~Released() { state_ = PyEval_SaveThread(); }
    Released(const Released&) = delete;
    Released& operator=(const Released&) = delete;
    PyThreadState*& state_;
  };

  void take_back() noexcept {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // pthread_exit(); leaving this block would abort
      while (true) pause();
    }
  }

  PyThreadState* state_;
};

/// Releases the GIL for a run, but lets Python handle signals meanwhile, which it does in its main
/// thread only. An exception of a handler, such as KeyboardInterrupt, ends the run.
class InterruptibleRun {
 public:
  InterruptibleRun() : InterruptibleRun(in_main_thread()) {}
  InterruptibleRun(const InterruptibleRun&) = delete;
  InterruptibleRun& operator=(const InterruptibleRun&) = delete;

  ReleasedGil& gil() { return gil_; }
  /// Refers to this object.
  CheckInterrupt check_interrupt() {
    if (!checks_) return {};
    return [this] { check(); };
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Before the GIL is released.
  explicit InterruptibleRun(bool checks) : checks_(checks) {}

  static bool in_main_thread() {
    const pybind11::object main = pybind11::module_::import("threading").attr("main_thread")();
    return main.attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
  }

  void check() {
    constexpr std::chrono::milliseconds kPeriod{50};
    if (Clock::now() < next_) return;
    gil_.hold([] {
      if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    });
    next_ = Clock::now() + kPeriod;
  }

  bool checks_;
  ReleasedGil gil_;
  Clock::time_point next_ = Clock::now() + std::chrono::milliseconds(50);
};

}  // namespace qpp
