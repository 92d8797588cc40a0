// SPDX-License-Identifier: Apache-2.0
//
// Counts every allocation of the test program, and lets one fail. In a file of its own, so that no
// compiler sees through it.

#include <atomic>
#include <cstdlib>
#include <new>

#include "support.h"

namespace {
std::atomic<std::int64_t> count{0};
thread_local std::int64_t until_failure = -1;

void count_allocation() {
  ++count;
  if (until_failure < 0) return;
  --until_failure;
  if (until_failure < 0) throw std::bad_alloc();
}
}  // namespace

namespace qpp::test {
std::int64_t allocations() { return count; }
void fail_allocation(std::int64_t index) { until_failure = index; }
}  // namespace qpp::test

// NOLINTBEGIN(cppcoreguidelines-no-malloc): a replacement of operator new has nothing else to call
void* operator new(std::size_t size) {
  count_allocation();
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  count_allocation();
  const auto step = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(step, (size + step - 1) / step * step)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++count;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
// NOLINTEND(cppcoreguidelines-no-malloc)
