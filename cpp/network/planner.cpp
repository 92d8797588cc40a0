// SPDX-License-Identifier: Apache-2.0
#include "network/planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/align.h"

namespace qpp {
namespace {

/// Which block is placed first.
using Order = bool (*)(const Lifetime& a, const Lifetime& b);

int steps(const Lifetime& block) { return block.last - block.first; }

constexpr Order kOrders[] = {
    [](const Lifetime& a, const Lifetime& b) { return a.bytes > b.bytes; },
    [](const Lifetime& a, const Lifetime& b) {
      return steps(a) != steps(b) ? steps(a) > steps(b) : a.bytes > b.bytes;
    },
    [](const Lifetime& a, const Lifetime& b) {
      return a.first != b.first ? a.first < b.first : a.bytes > b.bytes;
    },
    [](const Lifetime& a, const Lifetime& b) {
      return a.last != b.last ? a.last > b.last : a.bytes > b.bytes;
    },
};

MemoryPlan plan_in_order(const std::vector<Lifetime>& blocks, Order before) {
  MemoryPlan plan;
  plan.offsets.resize(blocks.size());
  std::vector<std::size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return before(blocks[a], blocks[b]); });

  std::vector<std::size_t> placed;  // by offset
  for (const std::size_t block : order) {
    const std::size_t bytes = round_up(blocks[block].bytes, kAlignment);
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      const bool together =
          blocks[other].first <= blocks[block].last && blocks[block].first <= blocks[other].last;
      if (!together) continue;
      if (offset + bytes <= plan.offsets[other]) break;
      offset = std::max(offset, plan.offsets[other] + round_up(blocks[other].bytes, kAlignment));
    }
    plan.offsets[block] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    const auto after = std::upper_bound(
        placed.begin(), placed.end(), offset,
        [&](std::size_t value, std::size_t other) { return value < plan.offsets[other]; });
    placed.insert(after, block);
  }
  return plan;
}

}  // namespace

std::size_t peak_bytes(const std::vector<Lifetime>& blocks) {
  int last = 0;
  for (const Lifetime& block : blocks) last = std::max(last, block.last);
  std::vector<std::size_t> alive(static_cast<std::size_t>(last) + 1);
  for (const Lifetime& block : blocks) {
    for (int step = block.first; step <= block.last; ++step)
      alive[static_cast<std::size_t>(step)] += block.bytes;
  }
  return *std::max_element(alive.begin(), alive.end());
}

MemoryPlan plan_memory(const std::vector<Lifetime>& blocks) {
  MemoryPlan best = plan_in_order(blocks, kOrders[0]);
  for (std::size_t i = 1; i < std::size(kOrders); ++i) {
    MemoryPlan plan = plan_in_order(blocks, kOrders[i]);
    if (plan.bytes < best.bytes) best = std::move(plan);
  }
  return best;
}

}  // namespace qpp
