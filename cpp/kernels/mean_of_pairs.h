// SPDX-License-Identifier: Apache-2.0
//
// The mean of statistics.h, for all vector kernels: in which order vectors of 8 are paired.
#pragma once

#include "kernels/variants.h"

namespace qpp {
namespace {

/// The sum of all averages of pairs, in the order of statistics.h. `BlockSums`, a class of the
/// including file, has a type Vector of 8 elements and
///
///   BlockSums(int64 tail)      channels % 8
///   Vector load(src)           8 elements; load_tail(src): the first `tail`, then zeros
///   Vector zero()
///   void add_pair(first, second)
///   double total()
template <typename BlockSums>
double sum_of_pairs(const StatisticsSource& src) {
  using Vector = BlockSums::Vector;
  BlockSums sums(src.channels % 8);
  if (src.channels == src.stride) {
    const std::int64_t elements = src.pixels * src.channels;
    std::int64_t i = 0;
    for (; i + 16 <= elements; i += 16) {
      sums.add_pair(sums.load(src.data + i), sums.load(src.data + i + 8));
    }
    if (i < elements) sums.add_pair(sums.load(src.data + i), sums.zero());
    return sums.total();
  }
  Vector first = sums.zero();  // a pair may be of two pixels
  bool has_first = false;
  const auto add_vector = [&](Vector vector) __attribute__((always_inline)) {
    if (has_first) sums.add_pair(first, vector);
    first = vector;
    has_first = !has_first;
  };
  for (std::int64_t p = 0; p < src.pixels; ++p) {
    const half* pixel = src.data + p * src.stride;
    std::int64_t c = 0;
    for (; c + 8 <= src.channels; c += 8) add_vector(sums.load(pixel + c));
    if (c < src.channels) add_vector(sums.load_tail(pixel + c));
  }
  if (has_first) add_vector(sums.zero());
  return sums.total();
}

template <typename BlockSums>
void mean_of_pairs(const MeanArgs& args) {
  const double elements = static_cast<double>(args.src.pixels * args.src.channels);
  *args.mean = static_cast<float>(2 * sum_of_pairs<BlockSums>(args.src) / elements);
}

}  // namespace
}  // namespace qpp
