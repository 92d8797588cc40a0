// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace qpp {

/// A block of memory that is needed from step `first` to step `last`, both included.
struct Lifetime {
  std::size_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct MemoryPlan {
  std::vector<std::size_t> offsets;  // per block, multiples of kAlignment
  std::size_t bytes = 0;             // size of the arena
};

/// The most bytes that are alive at one step: no plan needs less.
std::size_t peak_bytes(const std::vector<Lifetime>& blocks);

/// Gives every block a place in one arena such that blocks alive at the same step do not overlap.
/// Blocks are placed one after the other, each at the lowest gap that holds it; of several orders,
/// the one that needs the smallest arena is taken.
MemoryPlan plan_memory(const std::vector<Lifetime>& blocks);

}  // namespace qpp
