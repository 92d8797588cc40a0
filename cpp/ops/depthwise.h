// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "ops/conv2d.h"
#include "ops/conv_output.h"

namespace qpp {

/// A convolution of every channel by itself, with a kernel that is not large: up to 7x7, or 1x32.
class DepthwiseConv2d final : public Op {
 public:
  [[nodiscard]] static bool supports(const Conv2dSpec& spec);
  DepthwiseConv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                  const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "conv2d"; }
  [[nodiscard]] std::string kernel() const override { return kernel_->info.name; }
  [[nodiscard]] std::int64_t macs() const override {
    return output_.pixels() * geometry_.channels * geometry_.kernel.height * geometry_.kernel.width;
  }
  [[nodiscard]] std::size_t weight_bytes() const override { return weights_.data.size(); }

 private:
  struct Scratch;
  [[nodiscard]] Scratch lay_out(std::byte* base) const;

  std::string name_;
  Conv2dTypes types_;
  Conv2dGeometry geometry_;
  ActivationSpec activation_;
  const DepthwiseKernel* kernel_;
  PackedWeights weights_;
  AlignedVector<float> bias_;
  bool plain_ = false;  // from fp16 to fp16, with weights in units of 1
  Shape input_;
  Shape output_;
  int threads_ = 1;
};

/// A convolution whose filters see one group of the channels each: one convolution for each group,
/// on copies of its channels.
class GroupedConv2d final : public Op {
 public:
  GroupedConv2d(const Conv2dSpec& spec, const Conv2dTypes& types, const KernelSelection& selection);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  [[nodiscard]] std::size_t scratch_bytes() const override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override { return "conv2d"; }
  [[nodiscard]] std::string kernel() const override { return groups_[0]->kernel(); }
  [[nodiscard]] std::int64_t macs() const override {
    return groups_[0]->macs() * static_cast<std::int64_t>(groups_.size());
  }
  [[nodiscard]] std::size_t weight_bytes() const override;

 private:
  struct Scratch;
  [[nodiscard]] Scratch lay_out(std::byte* base) const;

  std::string name_;
  Conv2dTypes types_;
  std::int64_t channels_;  // of a group
  std::vector<std::unique_ptr<Conv2d>> groups_;
  Shape input_;
  Shape output_;
  Shape group_input_;
  Shape group_output_;
  std::size_t group_scratch_ = 0;
};

}  // namespace qpp
