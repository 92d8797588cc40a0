// SPDX-License-Identifier: Apache-2.0
#include "ops/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace qpp {
namespace {

Range measure(const MinMaxKernel& kernel, const TensorView& view) {
  Range range;
  kernel.function({.src = statistics_source(view), .range = &range});
  return range;
}

/// Extends quantiles towards the extremes of the value, as described at ChooseQParams; returns
/// whether it did.
bool extend(Range& bounds, const Range& extremes) {
  const bool cuts_below = bounds.lo >= 0 && extremes.lo < 0;
  const bool cuts_above = bounds.hi <= 0 && extremes.hi > 0;
  if (holds_only_zero(bounds)) {
    if (cuts_below) bounds.lo = extremes.lo;
    if (cuts_above) bounds.hi = extremes.hi;
  } else if (cuts_below) {
    bounds.lo = std::max(extremes.lo, -bounds.hi);
  } else if (cuts_above) {
    bounds.hi = std::min(extremes.hi, -bounds.lo);
  }
  return cuts_below || cuts_above;
}

}  // namespace

StatisticsSource statistics_source(const TensorView& view) {
  return {.data = view.as<half>(),
          .pixels = view.shape.pixels(),
          .channels = view.shape.channels,
          .stride = view.shape.stride()};
}

void check_finite(const Range& range, const std::string& value) {
  QPP_CHECK(
      std::isfinite(range.lo) && std::isfinite(range.hi), NonFiniteError, "value '", value,
      "': expected finite numbers to quantize, got NaN, infinity or an overflow of fp16 (range ",
      range.lo, " to ", range.hi, "); scheme \"fp16\" passes them on");
}

std::int64_t quantile_rank(double alpha, std::int64_t count) {
  const auto rank = static_cast<std::int64_t>(std::ceil(alpha * static_cast<double>(count))) - 1;
  return std::clamp<std::int64_t>(rank, 0, count - 1);
}

std::size_t QuantileScan::scratch_bytes(const Shape& shape) {
  return quantile_scratch_bytes(shape.pixels() * shape.channels);
}

void QuantileScan::run(const TensorView& src, std::span<const std::int64_t> ranks, float* values,
                       std::byte* scratch) const {
  kernel_->function({.src = statistics_source(src),
                     .ranks = ranks.data(),
                     .rank_count = static_cast<std::int64_t>(ranks.size()),
                     .values = values,
                     .scratch = scratch});
}

ChooseQParams::ChooseQParams(Spec spec, const KernelSelection& selection)
    : spec_(std::move(spec)),
      scans_(std::any_of(spec_.targets.begin(), spec_.targets.end(),
                         [](const Target& target) { return target.alpha < 1; })),
      minmax_(&selection.minmax()),
      quantile_(selection) {}

Shape ChooseQParams::prepare(std::span<const Shape> inputs, int /*threads*/) {
  shape_ = inputs[0];
  return {};
}

std::size_t ChooseQParams::scratch_bytes() const {
  return scans_ ? QuantileScan::scratch_bytes(shape_) : 0;
}

void ChooseQParams::run(const RunArgs& args, RunState& state) const {
  const TensorView& view = args.inputs[0];
  const auto first_row = static_cast<std::size_t>(spec_.targets[0].row);
  const Range range = spec_.range_measured ? state.ranges[first_row] : measure(*minmax_, view);
  check_finite(range, spec_.value);
  const std::int64_t count = shape_.pixels() * shape_.channels;
  constexpr std::size_t kAtOnce = kMaxRanks / 2;
  for (std::size_t first = 0; first < spec_.targets.size(); first += kAtOnce) {
    const std::span<const Target> targets =
        std::span(spec_.targets).subspan(first, std::min(kAtOnce, spec_.targets.size() - first));
    std::array<std::int64_t, kMaxRanks> ranks{};
    std::array<float, kMaxRanks> values{};
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const std::int64_t rank = quantile_rank(targets[i].alpha, count);
      ranks[2 * i] = count - 1 - rank;
      ranks[2 * i + 1] = rank;
      values[2 * i] = range.lo;
      values[2 * i + 1] = range.hi;
    }
    if (scans_)
      quantile_.run(view, std::span(ranks).first(2 * targets.size()), values.data(), args.scratch);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const auto row = static_cast<std::size_t>(targets[i].row);
      Range bounds{.lo = values[2 * i], .hi = values[2 * i + 1]};
      if (extend(bounds, range)) ++state.widened_bounds[row];
      state.qparams[row] = choose_qparams(bounds.lo, bounds.hi, spec_.bits);
    }
  }
}

std::string ChooseQParams::kernel() const {
  if (scans_) return quantile_.name();
  return spec_.range_measured ? "" : minmax_->info.name;
}

Shape CopyQParams::prepare(std::span<const Shape> /*inputs*/, int /*threads*/) { return {}; }

void CopyQParams::run(const RunArgs& /*args*/, RunState& state) const {
  state.qparams[static_cast<std::size_t>(to_)] = state.qparams[static_cast<std::size_t>(from_)];
}

}  // namespace qpp
