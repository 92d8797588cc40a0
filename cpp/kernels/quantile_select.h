// SPDX-License-Identifier: Apache-2.0
//
// Selection among few elements, a part of quantile_search.h. Unnamed namespaces keep all of it
// local to the including file, which is compiled for an instruction set of its own.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/align.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr half kInfinity{0x7c00};

// The halves in the order of their values, the least first: here are infinities and zero.
constexpr std::uint32_t kFirstOrder = 0x03ff;
constexpr std::uint32_t kLastOrder = 0xfc00;

inline std::uint32_t to_order(half value) {
  return static_cast<std::uint16_t>((value.bits & 0x8000U) != 0 ? ~value.bits
                                                                : value.bits | 0x8000U);
}

inline half from_order(std::uint32_t order) {
  return half{static_cast<std::uint16_t>((order & 0x8000U) != 0 ? order & 0x7fffU : ~order)};
}

/// The zeros are one value, but two in the order of halves.
inline half no_negative_zero(half value) { return value.bits == 0x8000U ? half{0} : value; }

/// Completes the last 64 values; returns the count rounded up to that.
inline std::int64_t pad(half* values, std::int64_t count) {
  const std::int64_t padded = round_up<std::int64_t>(count, 64);
  std::fill_n(values + count, padded - count, kInfinity);
  return padded;
}

/// Where to look for the element of a rank: its order is first .. last, or taken for one of
/// these; the guess and the orders per rank around it only save passes.
struct Bracket {
  std::uint32_t first = kFirstOrder;
  std::uint32_t last = kLastOrder;
  std::uint32_t guess = 0;
  double orders_per_rank = 0;
};

/// The element of rank `rank` among padded values, by passes that count the elements not above a
/// bound: a few go where the guess points, the others halve the bracket.
template <typename Engine>
half select(const half* values, std::int64_t padded, std::int64_t rank, const Bracket& bracket) {
  constexpr int kGuided = 6;
  std::int64_t first = bracket.first;
  std::int64_t last = bracket.last;
  double next = bracket.guess;
  for (int pass = bracket.guess == 0 ? kGuided : 0; first < last; ++pass) {
    const std::int64_t middle =
        pass < kGuided ? static_cast<std::int64_t>(std::clamp(next, static_cast<double>(first),
                                                              static_cast<double>(last - 1)))
                       : (first + last) / 2;
    const std::int64_t count =
        Engine::count_not_above(values, padded, from_order(static_cast<std::uint32_t>(middle)));
    const auto middle_order = static_cast<double>(middle);
    if (count > rank) {
      last = middle;
      next = middle_order - 1 -
             std::floor(static_cast<double>(count - 1 - rank) * bracket.orders_per_rank);
    } else {
      first = middle + 1;
      next = middle_order + 1 +
             std::floor(static_cast<double>(rank - count) * bracket.orders_per_rank);
    }
  }
  return from_order(static_cast<std::uint32_t>(first));
}

}  // namespace
}  // namespace qpp
