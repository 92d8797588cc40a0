// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <utility>

#include "base/check.h"

namespace qpp {

ThreadPool::ThreadPool(int threads, const CoreSet& cores) : cores_(cores) {
  QPP_CHECK(threads >= 1 && threads <= 256, Error, "threads: expected 1 to 256, got ", threads);
  for (int thread = 1; thread < threads; ++thread)
    workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(std::int64_t count, Task task) {
  if (workers_.empty()) {
    if (count > 0) task(0, count, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    count_ = count;
    running_ = static_cast<int>(workers_.size());
    failure_ = nullptr;
    ++generation_;
  }
  start_.notify_all();
  run_part(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work(int thread) {
  const CoreGuard guard(cores_);
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
    if (stopping_) return;
    seen = generation_;
    lock.unlock();
    run_part(thread);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::run_part(int thread) {
  const std::int64_t begin = count_ * thread / this->threads();
  const std::int64_t end = count_ * (thread + 1) / this->threads();
  if (begin == end) return;
  try {
    (*task_)(begin, end, thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

}  // namespace qpp
