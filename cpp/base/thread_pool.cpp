// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"

namespace qpp {

/// The threads of one process, without the caller's.
class ThreadPool::Workers {
 public:
  Workers(int threads, const CoreSet& cores);
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void run(std::int64_t count, const Task& task);

 private:
  void stop();
  void work(int thread);
  void run_part(int thread);

  int threads_;
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

ThreadPool::Workers::Workers(int threads, const CoreSet& cores) : threads_(threads), cores_(cores) {
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  try {
    for (int thread = 1; thread < threads; ++thread)
      workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::exception& error) {
    const std::size_t started = workers_.size() + 1;  // the caller's is running
    stop();
    throw Error(concat("threads: expected ", threads, ", the system started ", started, " (",
                       error.what(), "); ask for fewer or raise the limits of this process"));
  }
}

void ThreadPool::Workers::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Workers::run(std::int64_t count, const Task& task) {
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

void ThreadPool::Workers::work(int thread) {
  const CoreGuard guard(cores_);
  std::uint64_t done = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || generation_ != done; });
    if (stopping_) return;
    done = generation_;
    lock.unlock();
    run_part(thread);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::Workers::run_part(int thread) {
  const std::int64_t begin = count_ * thread / threads_;
  const std::int64_t end = count_ * (thread + 1) / threads_;
  if (begin == end) return;
  try {
    (*task_)(begin, end, thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

ThreadPool::ThreadPool(int threads, const CoreSet& cores) : threads_(threads), cores_(cores) {
  QPP_CHECK(threads >= 1 && threads <= 256, Error, "threads: expected 1 to 256, got ", threads);
  if (threads > 1) workers_.get(threads_, cores_);
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::parallel_for(std::int64_t count, Task task) {
  if (threads_ > 1) {
    workers_.get(threads_, cores_).run(count, task);
  } else if (count > 0) {
    task(0, count, 0);
  }
}

}  // namespace qpp
