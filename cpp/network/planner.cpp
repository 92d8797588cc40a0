// SPDX-License-Identifier: Apache-2.0
#include "network/planner.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
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
    if (blocks[block].bytes == 0) continue;
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

/// Gaps between blocks, by offset and by size.
class Gaps {
 public:
  /// Takes memory from the smallest gap that holds it, or else from the end.
  std::size_t take(std::size_t bytes) {
    const auto found = by_size_.lower_bound({bytes, 0});
    if (found != by_size_.end()) {
      const auto [size, offset] = *found;
      remove(offset, size);
      if (size > bytes) add(offset + bytes, size - bytes);
      return offset;
    }
    // A gap at the end grows.
    std::size_t offset = end_;
    if (!by_offset_.empty()) {
      const auto [last, size] = *by_offset_.rbegin();
      if (last + size == end_) {
        remove(last, size);
        offset = last;
      }
    }
    end_ = offset + bytes;
    return offset;
  }

  void give_back(std::size_t offset, std::size_t bytes) {
    const auto after = by_offset_.lower_bound(offset);
    if (after != by_offset_.begin()) {
      const auto [other, size] = *std::prev(after);
      if (other + size == offset) {
        remove(other, size);
        offset = other;
        bytes += size;
      }
    }
    const auto next = by_offset_.find(offset + bytes);
    if (next != by_offset_.end()) {
      const std::size_t size = next->second;
      remove(offset + bytes, size);
      bytes += size;
    }
    add(offset, bytes);
  }

  [[nodiscard]] std::size_t end() const { return end_; }

 private:
  void add(std::size_t offset, std::size_t size) {
    by_offset_.emplace(offset, size);
    by_size_.emplace(size, offset);
  }
  void remove(std::size_t offset, std::size_t size) {
    by_offset_.erase(offset);
    by_size_.erase({size, offset});
  }

  std::map<std::size_t, std::size_t> by_offset_;
  std::set<std::pair<std::size_t, std::size_t>> by_size_;  // and offset
  std::size_t end_ = 0;
};

/// Takes and gives back memory in the order of the steps. Costs little for any number of blocks.
MemoryPlan plan_in_time(const std::vector<Lifetime>& blocks) {
  MemoryPlan plan;
  plan.offsets.resize(blocks.size());
  std::vector<std::size_t> by_first;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].bytes > 0) by_first.push_back(i);
  }
  std::vector<std::size_t> by_last = by_first;
  std::stable_sort(by_first.begin(), by_first.end(),
                   [&](std::size_t a, std::size_t b) { return blocks[a].first < blocks[b].first; });
  std::stable_sort(by_last.begin(), by_last.end(),
                   [&](std::size_t a, std::size_t b) { return blocks[a].last < blocks[b].last; });
  Gaps gaps;
  auto ended = by_last.begin();
  for (const std::size_t block : by_first) {
    for (; blocks[*ended].last < blocks[block].first; ++ended)
      gaps.give_back(plan.offsets[*ended], round_up(blocks[*ended].bytes, kAlignment));
    plan.offsets[block] = gaps.take(round_up(blocks[block].bytes, kAlignment));
  }
  plan.bytes = gaps.end();
  return plan;
}

}  // namespace

std::size_t peak_bytes(const std::vector<Lifetime>& blocks) {
  int last = 0;
  for (const Lifetime& block : blocks) last = std::max(last, block.last);
  std::vector<std::size_t> begins(static_cast<std::size_t>(last) + 1);
  std::vector<std::size_t> ends(begins.size());
  for (const Lifetime& block : blocks) {
    begins[static_cast<std::size_t>(block.first)] += block.bytes;
    ends[static_cast<std::size_t>(block.last)] += block.bytes;
  }
  std::size_t alive = 0;
  std::size_t peak = 0;
  for (std::size_t step = 0; step < begins.size(); ++step) {
    alive += begins[step];
    peak = std::max(peak, alive);
    alive -= ends[step];
  }
  return peak;
}

MemoryPlan plan_memory(const std::vector<Lifetime>& blocks) {
  // Orders cost the square of the number of blocks, which no real network has many of.
  constexpr std::size_t kMaxBlocks = 4096;
  MemoryPlan best = plan_in_time(blocks);
  const auto count = static_cast<std::size_t>(std::count_if(
      blocks.begin(), blocks.end(), [](const Lifetime& block) { return block.bytes > 0; }));
  if (count > kMaxBlocks) return best;
  for (const Order order : kOrders) {
    MemoryPlan plan = plan_in_order(blocks, order);
    if (plan.bytes < best.bytes) best = std::move(plan);
  }
  return best;
}

}  // namespace qpp
