// SPDX-License-Identifier: Apache-2.0
#include "tools/measure.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/battery.h"
#include "base/cpu.h"

namespace qpp::bench {
namespace {

/// The remainders of all bytes.
constexpr std::array<std::uint32_t, 256> crc32_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
    table[byte] = crc;
  }
  return table;
}

std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc32_table();
  std::uint32_t crc = ~0U;
  for (const std::byte byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xffU];
  return ~crc;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string checksum(std::span<const std::byte> bytes) {
  std::ostringstream stream;
  stream << std::hex << crc32(bytes);
  return stream.str();
}

double median(std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void measure(const Options& options, const std::function<void()>& work,
             nlohmann::ordered_json& report) {
  std::optional<BatteryMeter> meter;
  if (options.has("--energy"))
    meter.emplace(options.text("--power-supply", "/sys/class/power_supply"));
  work();
  std::vector<double> milliseconds(static_cast<std::size_t>(options.integer("--iters")));
  if (meter) meter->sample(seconds_now());
  double next_sample = 0;
  for (double& elapsed : milliseconds) {
    const double start = seconds_now();
    work();
    const double end = seconds_now();
    elapsed = (end - start) * 1e3;
    constexpr double kSampleSeconds = 0.1;  // drivers renew their numbers more rarely
    if (meter && end > next_sample) {
      meter->sample(end);
      next_sample = end + kSampleSeconds;
    }
  }
  report["iters"] = milliseconds.size();
  if (is_emulated()) {
    report["ms_min"] = nullptr;
    report["ms_median"] = nullptr;
  } else {
    report["ms_median"] = median(milliseconds);
    report["ms_min"] = milliseconds.front();
  }
  if (!meter) return;
  meter->sample(seconds_now());
  report["energy"] = {{"mah", meter->milliampere_hours()},
                      {"joules", meter->joules()},
                      {"seconds", meter->seconds()},
                      {"samples", meter->samples()}};
}

}  // namespace qpp::bench
