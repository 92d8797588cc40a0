// SPDX-License-Identifier: Apache-2.0
#include "ops/predict_qparams.h"

#include <cmath>

#include "base/log2.h"

namespace qpp {
namespace {

float dot(std::span<const float> weight, float bias, std::span<const float> features) {
  float sum = bias;
  for (std::size_t i = 0; i < weight.size(); ++i) sum = std::fma(weight[i], features[i], sum);
  return sum;
}

/// The magnitude whose logarithm was predicted.
float magnitude(float log2) {
  const float x = exp2_shared(log2);
  return x > kMinMagnitude ? x : 0;
}

}  // namespace

Shape PredictQParams::prepare(std::span<const Shape> /*inputs*/, int /*threads*/) { return {}; }

std::size_t PredictQParams::weight_bytes() const {
  return (spec_.weight.size() + spec_.bias.size()) * sizeof(float) +
         spec_.targets.size() * sizeof(Target);
}

Range PredictQParams::predict(std::size_t target, std::span<const float> features) const {
  const std::span<const float> weight(spec_.weight);
  const std::size_t lo = 2 * target;
  const std::size_t hi = lo + 1;
  const std::size_t count = features.size();
  const Range bounds{.lo = dot(weight.subspan(lo * count, count), spec_.bias[lo], features),
                     .hi = dot(weight.subspan(hi * count, count), spec_.bias[hi], features)};
  if (spec_.transform == Transform::identity) return bounds;
  return {.lo = -magnitude(bounds.lo), .hi = magnitude(bounds.hi)};
}

void PredictQParams::run(const RunArgs& /*args*/, RunState& state) const {
  if (spec_.targets.empty()) return;
  const auto features =
      state.features.subspan(spec_.first_slot, spec_.weight.size() / spec_.bias.size());
  for (std::size_t i = 0; i < spec_.targets.size(); ++i) {
    const auto& [row, range] = spec_.targets[i];
    const auto index = static_cast<std::size_t>(row);
    const Range predicted = predict(i, features);
    Range bounds{.lo = clamp_level(predicted.lo, range.lo.lo, range.lo.hi),
                 .hi = clamp_level(predicted.hi, range.hi.lo, range.hi.hi)};
    if (bounds.lo != predicted.lo || bounds.hi != predicted.hi) ++state.clamped_predictions[index];
    const Range widest{.lo = range.lo.lo, .hi = range.hi.hi};
    if (holds_only_zero(bounds) && !holds_only_zero(widest)) {
      bounds = widest;
      ++state.widened_bounds[index];
    }
    state.qparams[index] = choose_qparams(bounds.lo, bounds.hi, spec_.bits);
  }
}

}  // namespace qpp
