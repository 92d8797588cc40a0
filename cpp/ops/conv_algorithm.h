// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "kernels/select.h"
#include "ops/conv2d.h"
#include "ops/operation.h"

namespace qpp {

/// "auto", "direct" or "winograd"; throws UnsupportedError.
Algorithm parse_algorithm(const std::string& name);

/// A convolution by this algorithm, where it applies; Op::kernel() names the chosen kernel.
std::unique_ptr<Op> make_conv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                                Algorithm algorithm, const KernelSelection& selection);

}  // namespace qpp
