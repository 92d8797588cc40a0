// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/thread_pool.h"
#include "tensor/view.h"

namespace qpp {

/// Float NCHW to half NHWC with zeroed channel padding. Returns whether all results are finite.
bool import_nchw(const float* src, const TensorView& dst, ThreadPool& pool);

/// Half NHWC to float NCHW.
void export_nchw(const TensorView& src, float* dst, ThreadPool& pool);

}  // namespace qpp
