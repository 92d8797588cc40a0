// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "ops/operation.h"

namespace qpp {

/// The operations pixel_shuffle and, as the inverse, pixel_unshuffle.
struct PixelShuffleSpec {
  static constexpr InputCount kInputs{};
  static Int8Trait int8_trait(const NodeSignature& node);
  static Operation parse(const NodeFields& node);

  std::string name;
  std::int64_t factor = 1;
  bool inverse = false;
};

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
  [[nodiscard]] bool writes_output_directly() const override {
    return !inverse_ && dtype_ == DType::f16;
  }

 private:
  std::string name_;
  std::int64_t factor_;
  bool inverse_;
  DType dtype_;
};

}  // namespace qpp
