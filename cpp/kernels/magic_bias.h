// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/output_stage.h"
#include "kernels/pack.h"

namespace qpp {

// The magic-bias fast path of output_stage.h. Accumulators start at the bits of kRoundingMagic:
// while a sum stays within +-2^22, its bits are those of the float kRoundingMagic + sum, and
// nothing needs to be converted. For an int8 destination the bias holds kRoundingMagic as well, so
// that the fma rounds to an integer, once, half to even. That bias must be an integer; the start of
// the accumulators holds the rest, to within half a unit of theirs. An int8 residual is added to
// the sums: a factor for each filter turns its steps into their units.

/// Properties of the sums of a run.
struct RunSums {
  const PackedWeights& weights;  // of int8, with magnitudes
  std::int32_t zero_point = 0;   // of the sources
  std::int32_t sparse = 0;       // the largest magnitude of a sparse part, which is added
};

/// Changes a stage, of an int8, int16 or fp16 destination and without tanh, and its arrays to the
/// fast path. Returns false if the sums of a filter are too large; the stage is then unchanged, but
/// the arrays are not. Bounds of int16 may be narrowed to the levels that all filters can
/// distinguish.
bool try_fast_requantization(const RunSums& sums, DType dst, bool residual,
                             const OutputArrays& arrays, OutputStage& stage);

}  // namespace qpp
