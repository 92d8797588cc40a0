// SPDX-License-Identifier: Apache-2.0
#include "ops/features.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/log2.h"
#include "base/memory_layout.h"

namespace qpp {
namespace {

constexpr double kMin = 0;  // min and max as alphas of quantiles
constexpr double kMax = 1;

/// The quantiles that a feature is made of.
std::vector<double> alphas_of(const FeatureSpec& feature) {
  switch (feature.kind) {
    case FeatureKind::quantile:
      return {feature.alpha};
    case FeatureKind::min:
      return {kMin};
    case FeatureKind::max:
      return {kMax};
    case FeatureKind::absmax:
      return {kMin, kMax};
    case FeatureKind::mean:
    case FeatureKind::std:
      break;
  }
  return {};
}

float transform(const FeatureSpec& feature, float x) {
  if (feature.transform == Transform::identity) return x;
  const float magnitude = feature.kind == FeatureKind::min ? -x : x;
  return log2_shared(std::max(magnitude, kMinMagnitude));
}

}  // namespace

MeasureFeatures::MeasureFeatures(Spec spec, const KernelSelection& selection)
    : spec_(std::move(spec)),
      minmax_(&selection.minmax()),
      mean_(&selection.mean()),
      deviation_(&selection.deviation()),
      quantile_(selection) {
  for (const Target& target : spec_.targets) {
    for (const double alpha : alphas_of(target.feature)) {
      if (std::find(alphas_.begin(), alphas_.end(), alpha) == alphas_.end())
        alphas_.push_back(alpha);
    }
  }
  scans_ = std::any_of(alphas_.begin(), alphas_.end(),
                       [](double alpha) { return alpha != kMin && alpha != kMax; });
}

bool MeasureFeatures::measures(FeatureKind kind) const {
  return std::any_of(spec_.targets.begin(), spec_.targets.end(),
                     [kind](const Target& target) { return target.feature.kind == kind; });
}

std::size_t MeasureFeatures::index_of(double alpha) const {
  return static_cast<std::size_t>(std::find(alphas_.begin(), alphas_.end(), alpha) -
                                  alphas_.begin());
}

Shape MeasureFeatures::prepare(std::span<const Shape> inputs, int /*threads*/) {
  shape_ = inputs[0];
  return {};
}

MeasureFeatures::Scratch MeasureFeatures::lay_out(std::byte* base) const {
  Scratch scratch{};
  MemoryLayout layout(base);
  layout.add(scratch.quantiles, static_cast<std::int64_t>(alphas_.size()));
  const std::size_t scan_bytes = scans_ ? QuantileScan::scratch_bytes(shape_) : 0;
  layout.add(scratch.scan, static_cast<std::int64_t>(scan_bytes));
  scratch.bytes = layout.bytes();
  return scratch;
}

std::string MeasureFeatures::kernel() const {
  if (scans_) return quantile_.name();
  if (!alphas_.empty()) return minmax_->info.name;
  return measures(FeatureKind::mean) ? mean_->info.name : deviation_->info.name;
}

void MeasureFeatures::measure_quantiles(const TensorView& view, const Scratch& scratch) const {
  const std::int64_t count = shape_.pixels() * shape_.channels;
  for (std::size_t first = 0; first < alphas_.size(); first += kMaxRanks) {
    const auto alphas =
        std::span(alphas_).subspan(first, std::min<std::size_t>(kMaxRanks, alphas_.size() - first));
    std::array<std::int64_t, kMaxRanks> ranks{};
    std::transform(alphas.begin(), alphas.end(), ranks.begin(),
                   [count](double alpha) { return quantile_rank(alpha, count); });
    quantile_.run(view, std::span(ranks).first(alphas.size()), scratch.quantiles + first,
                  scratch.scan);
  }
}

void MeasureFeatures::run(const RunArgs& args, RunState& state) const {
  const TensorView& view = args.inputs[0];
  const StatisticsSource source = statistics_source(view);
  float mean = 0;
  if (measures(FeatureKind::mean)) mean_->function({.src = source, .mean = &mean});
  Range range{.lo = 0, .hi = 0};
  // The scan finds the extremes, too. A mean of halves is finite unless an element is not.
  if (!scans_ || !measures(FeatureKind::mean) || !std::isfinite(mean)) {
    minmax_->function({.src = source, .range = &range});
    check_finite(range, spec_.value);
  }
  float deviation = 0;
  if (measures(FeatureKind::std)) deviation_->function({.src = source, .deviation = &deviation});
  const Scratch scratch = lay_out(args.scratch);
  if (scans_) {
    measure_quantiles(view, scratch);
  } else {
    std::transform(alphas_.begin(), alphas_.end(), scratch.quantiles,
                   [&range](double alpha) { return alpha == kMin ? range.lo : range.hi; });
  }
  const auto statistic = [&](const FeatureSpec& feature) {
    switch (feature.kind) {
      case FeatureKind::quantile:
        return scratch.quantiles[index_of(feature.alpha)];
      case FeatureKind::mean:
        return mean;
      case FeatureKind::std:
        return deviation;
      case FeatureKind::min:
        return scratch.quantiles[index_of(kMin)];
      case FeatureKind::max:
        return scratch.quantiles[index_of(kMax)];
      case FeatureKind::absmax:
        return std::max(std::abs(scratch.quantiles[index_of(kMin)]),
                        std::abs(scratch.quantiles[index_of(kMax)]));
    }
    return 0.0F;
  };
  for (const Target& target : spec_.targets)
    state.features[target.slot] = transform(target.feature, statistic(target.feature));
}

}  // namespace qpp
