// SPDX-License-Identifier: Apache-2.0
#include "base/battery.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "base/check.h"

namespace qpp {
namespace {

template <typename T>
bool read(const std::string& path, T& value) {
  std::ifstream file(path);
  return static_cast<bool>(file >> value);
}

}  // namespace

BatteryMeter::BatteryMeter(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> supplies;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    supplies.push_back(entry.path().string());
  std::sort(supplies.begin(), supplies.end());
  for (const std::string& supply : supplies) {
    double number = 0;
    std::string type = "Battery";  // where the file is missing
    read(supply + "/type", type);
    if (type != "Battery" || !read(supply + "/current_now", number) ||
        !read(supply + "/voltage_now", number)) {
      continue;
    }
    std::string status = "Discharging";
    read(supply + "/status", status);
    QPP_CHECK(status == "Discharging", UnsupportedError, "energy: expected the battery ", supply,
              " to be discharging, got ", status, "; unplug the charger");
    folder_ = supply;
    return;
  }
  throw UnsupportedError(concat("energy: expected a battery with current_now and voltage_now in ",
                                folder, ", found none"));
}

void BatteryMeter::sample(double seconds) {
  double microamperes = 0;
  double microvolts = 0;
  QPP_CHECK(
      read(folder_ + "/current_now", microamperes) && read(folder_ + "/voltage_now", microvolts),
      UnsupportedError, "energy: cannot read current_now and voltage_now in ", folder_);
  // Drivers disagree about the sign of a current that is drawn.
  const double amperes = std::abs(microamperes) * 1e-6;
  const Sample next{.seconds = seconds, .amperes = amperes, .watts = amperes * microvolts * 1e-6};
  if (samples_ == 0) {
    first_seconds_ = seconds;
  } else {
    const double elapsed = next.seconds - last_.seconds;
    coulombs_ += (next.amperes + last_.amperes) / 2 * elapsed;
    joules_ += (next.watts + last_.watts) / 2 * elapsed;
  }
  last_ = next;
  ++samples_;
}

}  // namespace qpp
