// SPDX-License-Identifier: Apache-2.0
//
// Exact quantiles in little more than one pass, for all vector kernels.
//
//   sample      up to 1024 groups of 8 consecutive elements at even distances; of each group the
//               greatest and the least element                              quantile_source.h
//   tails       ranks near an end:                                          quantile_tails.h
//                 limit = an element of the sample that the k outermost elements almost surely pass
//                 one pass collects all elements beyond the limits of both ends
//                 select each rank among these few                          quantile_select.h
//                 a rank on the limit itself: count its equals, in the sample or in a pass
//   interval    any other rank, or one that was missed:                     quantile_interval.h
//                 lo, hi = two elements of the sample around it
//                 one pass counts the elements above lo and collects those between
//                 select the rank among these
//   reference   a rank that was missed twice
//
// The margins are three standard deviations of the sample's prediction, so that a pass misses with
// a probability of about 1e-3. Few elements are copied and selected from at once.
#pragma once

#include "kernels/quantile_interval.h"
#include "kernels/quantile_tails.h"

namespace qpp {
namespace {

constexpr std::int64_t kSmallest = 4096;  // elements that are worth a sample

/// Finds all ranks in a copy of the elements.
template <typename Engine>
void find_in_copy(const QuantileArgs& args, std::int64_t count) {
  half* copy = static_cast<half*>(args.scratch);
  half* end = copy;
  for (std::int64_t p = 0; p < args.src.pixels; ++p) {
    end = std::copy_n(args.src.data + p * args.src.stride, args.src.channels, end);
  }
  const std::int64_t padded = pad(copy, count);
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    args.values[i] = to_float(select<Engine>(copy, padded, args.ranks[i], {}));
  }
}

/// A quantile kernel. `Engine`, a class of the including file, has the passes over elements:
///
///   // How many of values[0 .. padded), a multiple of 64, compare so; the zeros are equal.
///   int64 count_below(values, padded, bound), count_not_above(..), count_equal(..)
///   half greatest(values, padded)
///   // Element g is the greatest and the negated least element of groups[g].
///   void find_ends(const half* const (&groups)[8], half* greatest, half* negated_least)
///   // Adds up, for groups of 8, how many elements are below the bound, and the squares of that.
///   void count_in_groups(values, padded, bound, int64& sum, int64& sum_of_squares)
///   // Appends the elements of a block above `high`, and negated those whose negation is above
///   // `low`; may write 8 elements more.
///   template <bool kHigh, bool kLow> class Beyond(half high, half low)
///     void append(block, half*& next_high, half*& next_low)
///   // Appends at least the elements between `lo` and `hi`, and adds up the elements above `lo`,
///   // which is not negative if kPositive.
///   template <bool kPositive> class Between(half lo, half hi)
///     void append(block, half*& next, int64& above_lo)
template <typename Engine>
void find_quantiles(const QuantileArgs& args) {
  const std::int64_t count = args.src.pixels * args.src.channels;
  if (count <= kSmallest) return find_in_copy<Engine>(args, count);
  const std::uint32_t remaining = find_in_tails<Engine>(args, count);
  for (std::int64_t i = 0; i < args.rank_count; ++i) {
    if ((remaining >> i & 1) == 0 || find_between<Engine>(args, args.ranks[i], args.values[i]))
      continue;
    return quantile_f32_f16_ref(args);
  }
}

}  // namespace
}  // namespace qpp
