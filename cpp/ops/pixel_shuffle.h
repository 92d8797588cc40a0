// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "ops/op.h"

namespace qpp {

/// Depth to space, as torch.nn.PixelShuffle: dst[y * r + i, x * r + j, c] = src[y, x, (c * r + i) *
/// r + j]; or the inverse. Keeps element type and row.
class PixelShuffle final : public Op {
 public:
  PixelShuffle(std::string name, std::int64_t factor, bool inverse, DType dtype);
  Shape prepare(std::span<const Shape> inputs, int threads) override;
  void run(const RunArgs& args, RunState& state) const override;
  [[nodiscard]] std::string kind() const override {
    return inverse_ ? "pixel_unshuffle" : "pixel_shuffle";
  }
  [[nodiscard]] bool exports() const override { return !inverse_ && dtype_ == DType::f16; }

 private:
  std::string name_;
  std::int64_t factor_;
  bool inverse_;
  DType dtype_;
};

}  // namespace qpp
