// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <memory>

namespace qpp {

/// One T per process. A forked child has no threads of its parent, and mutexes in an arbitrary
/// state, so it constructs its own T at first use. It does not destroy the parent's T, whose
/// destructor would wait for threads that do not exist.
template <typename T>
class PerProcess {
 public:
  PerProcess() = default;
  ~PerProcess() {
    const Entry* entry = entry_.load(std::memory_order_acquire);
    if (entry != nullptr && entry->process == getpid()) delete entry;
  }
  PerProcess(const PerProcess&) = delete;
  PerProcess& operator=(const PerProcess&) = delete;

  /// The T of this process, constructed from `arguments` at the first call. Safe to call from
  /// several threads.
  template <typename... Arguments>
  T& get(const Arguments&... arguments) {
    const pid_t process = getpid();
    Entry* entry = entry_.load(std::memory_order_acquire);
    if (entry != nullptr && entry->process == process) return entry->object;
    auto own = std::make_unique<Entry>(process, arguments...);
    if (entry_.compare_exchange_strong(entry, own.get(), std::memory_order_acq_rel))
      return own.release()->object;
    return entry->object;  // another thread was faster
  }

 private:
  struct Entry {
    template <typename... Arguments>
    explicit Entry(pid_t owner, const Arguments&... arguments)
        : process(owner), object(arguments...) {}
    pid_t process;
    T object;
  };
  std::atomic<Entry*> entry_ = nullptr;
};

}  // namespace qpp
