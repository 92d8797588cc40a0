// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "tools/options.h"

namespace qpp::bench {

/// Deterministic test data, the same on every machine.
class Random {
 public:
  /// Uniform over [-1, 1).
  float next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 0x1p-31F;
  }

 private:
  std::uint64_t state_ = 1;
};

/// CRC-32 of some bytes, in hexadecimal.
std::string checksum(std::span<const std::byte> bytes);

/// The median of some times, which it sorts.
double median(std::vector<double>& times);

/// Runs `work` once, then as often as --iters says, and adds the times to the report where they
/// mean something, and the energy where --energy asks for it.
void measure(const Options& options, const std::function<void()>& work,
             nlohmann::ordered_json& report);

}  // namespace qpp::bench
