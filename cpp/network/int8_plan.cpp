// SPDX-License-Identifier: Apache-2.0
#include "network/int8_plan.h"

#include <set>

namespace qpp {
namespace {

/// A 1x1 convolution of every channel by itself: a gain and a shift.
bool scales_channels(const Conv2dSpec& spec) {
  return spec.channels == 1 && spec.groups == spec.filters && spec.kernel.height == 1 &&
         spec.kernel.width == 1;
}

/// Whether the int8 output has the levels of the input.
bool keeps_levels(const Node& node) {
  const auto* pool = std::get_if<PoolSpec>(&node.spec);
  return (pool != nullptr && pool->kind == PoolKind::max) ||
         std::holds_alternative<ResizeSpec>(node.spec) ||
         std::holds_alternative<SliceSpec>(node.spec) ||
         std::holds_alternative<PadSpec>(node.spec) ||
         std::holds_alternative<RearrangeSpec>(node.spec) ||
         std::holds_alternative<PixelShuffleSpec>(node.spec);
}

bool is_sum(const Node& node) {
  const auto* binary = std::get_if<BinarySpec>(&node.spec);
  return binary != nullptr && binary->kind != BinaryKind::mul;
}

/// Per node. With `skip_sums` neither sums do, nor what keeps levels for them.
std::vector<std::size_t> count_int8_inputs(const Model& model, bool skip_sums) {
  std::vector<std::size_t> counts(model.nodes.size());
  std::set<std::string> wanted;  // in int8
  std::set<std::string> summed;
  for (std::size_t i = model.nodes.size(); i-- > 0;) {
    const Node& node = model.nodes[i];
    if (skip_sums && (is_sum(node) || (keeps_levels(node) && summed.contains(node.output)))) {
      summed.insert(node.inputs.begin(), node.inputs.end());
      continue;
    }
    const auto* conv = std::get_if<Conv2dSpec>(&node.spec);
    const bool can_follow = conv != nullptr || std::holds_alternative<BinarySpec>(node.spec) ||
                            std::holds_alternative<PoolSpec>(node.spec) ||
                            std::holds_alternative<ConcatSpec>(node.spec) || keeps_levels(node);
    const bool follows = can_follow && wanted.contains(node.output);
    if (node.fp16 || !(follows || (conv != nullptr && !scales_channels(*conv)))) continue;
    const bool only_first = conv != nullptr && (skip_sums || !follows);
    counts[i] = only_first ? 1 : node.inputs.size();
    const auto residual = node.inputs.begin() + static_cast<std::ptrdiff_t>(counts[i]);
    wanted.insert(node.inputs.begin(), residual);
    summed.insert(residual, node.inputs.end());
  }
  return counts;
}

}  // namespace

std::vector<std::size_t> count_int8_inputs_but_in_sums(const Model& model) {
  return count_int8_inputs(model, /*skip_sums=*/true);
}

Int8Plan plan_int8(const Model& model) {
  Int8Plan plan;
  plan.int8_inputs = count_int8_inputs(model, /*skip_sums=*/false);
  std::set<std::string> wanted;
  for (std::size_t i = 0; i < model.nodes.size(); ++i) {
    const std::vector<std::string>& inputs = model.nodes[i].inputs;
    wanted.insert(inputs.begin(),
                  inputs.begin() + static_cast<std::ptrdiff_t>(plan.int8_inputs[i]));
  }
  for (std::size_t i = 0; i < model.nodes.size(); ++i) {
    const Node& node = model.nodes[i];
    if (!keeps_levels(node) || plan.int8_inputs[i] == 0) continue;
    const auto owner = plan.row_owners.find(node.inputs[0]);
    plan.row_owners[node.output] = owner == plan.row_owners.end() ? node.inputs[0] : owner->second;
  }
  for (const std::string& value : wanted) {
    if (plan.row_owners.emplace(value, value).first->second == value) plan.values.push_back(value);
  }
  return plan;
}

}  // namespace qpp
