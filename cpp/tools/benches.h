// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/options.h"

namespace qpp::bench {

// One function per kind of work: each runs the work of the options and fills the report.

void bench_conv(const Options& options, nlohmann::ordered_json& report);
void bench_binary(const Options& options, nlohmann::ordered_json& report);
void bench_pool(const Options& options, nlohmann::ordered_json& report);
void bench_concat(const Options& options, nlohmann::ordered_json& report);
void bench_enlargement(const Options& options, nlohmann::ordered_json& report);
void bench_tensor(const Options& options, nlohmann::ordered_json& report);
void bench_model(const Options& options, nlohmann::ordered_json& report);

/// The options of a session that bench_model() accepts, as text.
std::string describe_session_options();

}  // namespace qpp::bench
