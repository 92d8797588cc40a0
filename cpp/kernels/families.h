// SPDX-License-Identifier: Apache-2.0
//
// The headers of all families in families.inc.
#pragma once

#include "kernels/activation.h"
#include "kernels/conv.h"
#include "kernels/depthwise.h"
#include "kernels/elementwise.h"
#include "kernels/pool.h"
#include "kernels/quantize.h"
#include "kernels/resize.h"
#include "kernels/sparsify.h"
#include "kernels/spmm.h"
#include "kernels/statistics.h"
#include "kernels/winograd.h"
