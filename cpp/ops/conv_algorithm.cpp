// SPDX-License-Identifier: Apache-2.0
#include "ops/conv_algorithm.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "ops/depthwise.h"
#include "ops/winograd.h"

namespace qpp {
namespace {

struct DirectCost {
  std::string_view kernel;
  double mac;
};
constexpr DirectCost kDirectCosts[] = {
#define QPP_DIRECT_COST(kernel, mac) {#kernel, mac},
#define QPP_WINOGRAD4_COST(...)
#include "ops/conv_costs.inc"
};

struct Winograd4Cost {
  std::string_view kernel;
  double product;
  double channel;
  double filter;
  double cached_megabytes;
  double megabyte;
};
constexpr Winograd4Cost kWinograd4Costs[] = {
#define QPP_DIRECT_COST(...)
#define QPP_WINOGRAD4_COST(kernel, ...) {#kernel, __VA_ARGS__},
#include "ops/conv_costs.inc"
};

template <typename Cost, std::size_t kCount>
const Cost* find_cost(const Cost (&costs)[kCount], std::string_view kernel) {
  const auto* found = std::find_if(std::begin(costs), std::end(costs),
                                   [&](const Cost& cost) { return cost.kernel == kernel; });
  return found == std::end(costs) ? nullptr : found;
}

Algorithm cheapest_algorithm(const Conv2dSpec& spec, const Conv2dTypes& types,
                             const KernelSelection& selection) {
  if (!WinogradConv2d::supports(spec, types.src)) return Algorithm::direct;
  const WinogradMultiplyKernel& multiply = selection.winograd4_multiply();
  const DirectCost* direct =
      find_cost(kDirectCosts, selection.conv(types.dst, types.src).info.name);
  const Winograd4Cost* winograd = find_cost(kWinograd4Costs, multiply.info.name);
  if (direct == nullptr || winograd == nullptr) return Algorithm::direct;
  const auto channels = static_cast<double>(round_up<std::int64_t>(spec.channels, 8));
  const auto filters = static_cast<double>(round_up<std::int64_t>(spec.filters, 8));
  const double megabytes =
      channels * filters * kWinogradPoints * static_cast<double>(size_of(multiply.weights)) * 1e-6;
  const double tile = channels * filters * winograd->product + channels * winograd->channel +
                      filters * winograd->filter;
  const double pixel = 9 * channels * filters * direct->mac;
  if (megabytes <= winograd->cached_megabytes) {
    constexpr int kPixels = kWinogradTile * kWinogradTile;
    return tile < kPixels * pixel ? Algorithm::winograd : Algorithm::direct;
  }
  // Sizes are not known yet. Layers of so many weights come last, where 224x224 pixels are 7x7.
  constexpr int kTiles = 4;
  constexpr int kPixels = 49;
  const double of_winograd = std::max(kTiles * tile, megabytes * winograd->megabyte);
  return of_winograd < kPixels * pixel ? Algorithm::winograd : Algorithm::direct;
}

std::unique_ptr<Op> make_direct(const Conv2dSpec& spec, const Conv2dTypes& types,
                                const KernelSelection& selection) {
  if (DepthwiseConv2d::supports(spec))
    return std::make_unique<DepthwiseConv2d>(spec, types, selection);
  if (spec.groups > 1) return std::make_unique<GroupedConv2d>(spec, types, selection);
  return std::make_unique<Conv2d>(spec, types, selection);
}

}  // namespace

Algorithm parse_algorithm(const std::string& name) {
  if (name == "auto") return Algorithm::automatic;
  if (name == "direct") return Algorithm::direct;
  if (name == "winograd") return Algorithm::winograd;
  throw UnsupportedError(
      concat("algorithm: expected \"auto\", \"direct\" or \"winograd\", got \"", name, "\""));
}

std::unique_ptr<Op> make_conv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                                Algorithm algorithm, const KernelSelection& selection) {
  if (spec.groups == 1) {
    if (algorithm == Algorithm::automatic) algorithm = cheapest_algorithm(spec, types, selection);
    if (algorithm == Algorithm::winograd && WinogradConv2d::supports(spec, types.src)) {
      return std::make_unique<WinogradConv2d>(spec, types, selection);
    }
  }
  // Winograd's kernels have fp16 weights in every scheme.
  return types.src == DType::qai8 ? make_direct(with_int8_weights(spec), types, selection)
                                  : make_direct(spec, types, selection);
}

}  // namespace qpp
