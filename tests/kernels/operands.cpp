// SPDX-License-Identifier: Apache-2.0
#include "operands.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace qpp::check {

GuardedBytes::GuardedBytes(std::size_t size) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t usable = round_up(size, page);
  map_size_ = usable + page;
  void* map = mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  map_ = static_cast<std::byte*>(map);
  if (mprotect(map_ + usable, page, PROT_NONE) != 0) throw std::bad_alloc();
  data_ = map_ + usable - size;
}

GuardedBytes::~GuardedBytes() { munmap(map_, map_size_); }

std::shared_ptr<AlignedVector<half>> random_halves(std::int64_t count, std::uint64_t seed) {
  auto values = std::make_shared<AlignedVector<half>>(static_cast<std::size_t>(count));
  Random random(seed);
  for (half& value : *values) value = to_half(random.uniform(-1, 1));
  return values;
}

void draw(Random& random, Values values, std::int8_t& element, float /*largest*/) {
  if (values == Values::extreme) values = random.bits() % 2 == 0 ? Values::lowest : Values::highest;
  switch (values) {
    case Values::zeros:
      element = 0;
      break;
    case Values::lowest:
      element = -128;
      break;
    case Values::highest:
      element = 127;
      break;
    default:
      element = static_cast<std::int8_t>(random.integer(-128, 127));
  }
}

void draw(Random& random, Values values, half& element, float largest) {
  if (values == Values::extreme) values = random.bits() % 2 == 0 ? Values::lowest : Values::highest;
  switch (values) {
    case Values::patterns:
      element = half{static_cast<std::uint16_t>(random.bits())};
      break;
    case Values::zeros:
      element = half{static_cast<std::uint16_t>(random.bits() & 0x8000U)};
      break;
    case Values::lowest:
      element = to_half(-largest);
      break;
    case Values::highest:
      element = to_half(largest);
      break;
    default:
      element = to_half(random.uniform(-1, 1));
  }
}

}  // namespace qpp::check
