// SPDX-License-Identifier: Apache-2.0
//
// How quantile_search.h visits elements: all of them in blocks, or a sample of them in groups.
#pragma once

#include <numeric>

#include "kernels/quantile_select.h"

namespace qpp {
namespace {

constexpr std::int64_t kGroup = 8;            // elements that are sampled together
constexpr std::int64_t kBlock = 64 * kGroup;  // elements that are visited together
constexpr std::int64_t kMaxSample = 1024;     // groups

/// Calls visit(block) for all elements, a block at a time. Elements that are not contiguous are
/// copied, in whole groups; `fill` completes the last block.
template <typename Visit>
[[gnu::always_inline]] inline void for_each_block(const StatisticsSource& src, half fill,
                                                  const Visit& visit) {
  half staging[kBlock + kGroup];
  std::int64_t staged = 0;
  if (src.channels == src.stride) {
    const half* next = src.data;
    const half* const end = next + src.pixels * src.channels;
    for (; end - next >= kBlock; next += kBlock) visit(next);
    staged = end - next;
    std::copy_n(next, staged, staging);
  } else {
    for (std::int64_t p = 0; p < src.pixels; ++p) {
      const half* pixel = src.data + p * src.stride;
      for (std::int64_t c = 0; c < src.channels; c += kGroup) {
        std::copy_n(pixel + c, kGroup, staging + staged);
        staged += std::min(kGroup, src.channels - c);
        if (staged < kBlock) continue;
        visit(staging);
        staged -= kBlock;
        std::copy_n(staging + kBlock, kGroup, staging);
      }
    }
  }
  if (staged == 0) return;
  std::fill_n(staging + staged, kBlock - staged, fill);
  visit(staging);
}

template <typename Engine>
std::int64_t count_equal(const StatisticsSource& src, half value) {
  std::int64_t total = 0;
  for_each_block(src, kInfinity,
                 [&](const half* block) { total += Engine::count_equal(block, kBlock, value); });
  return total;
}

/// The eight elements from number `first` on, copied to `room` if they are not contiguous.
[[gnu::always_inline]] inline const half* group_at(const StatisticsSource& src, std::int64_t first,
                                                   half* room) {
  if (src.channels == src.stride) return src.data + first;
  std::int64_t channel = first % src.channels;
  const half* pixel = src.data + first / src.channels * src.stride;
  for (std::int64_t i = 0; i < kGroup; ++i) {
    room[i] = pixel[channel];
    if (++channel < src.channels) continue;
    channel = 0;
    pixel += src.stride;
  }
  return room;
}

/// Groups at even distances.
struct SampleStride {
  std::int64_t groups;  // a multiple of 64
  std::int64_t step;    // from group to group

  explicit SampleStride(const StatisticsSource& src) {
    const std::int64_t all = src.pixels * src.channels / kGroup;
    groups = std::clamp<std::int64_t>(all / 24 / 64 * 64, 64, kMaxSample);
    step = all / groups;
    while (std::gcd(step * kGroup, src.channels) > std::gcd(kGroup, src.channels)) {
      --step;  // or some channels would never be met
    }
  }
};

}  // namespace
}  // namespace qpp
