// SPDX-License-Identifier: Apache-2.0
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

/// Declares every kernel of variants.inc.
namespace qpp {

#define QPP_CONV(name, family, dst, src, weights, mr, nr, kr, needs) \
  void name(const ConvArgs& args);
#define QPP_WINOGRAD4_INPUT(name, dst, src, needs) void name(const WinogradInputArgs& args);
#define QPP_WINOGRAD4_MULTIPLY(name, dst, src, weights, needs) \
  void name(const WinogradMultiplyArgs& args);
#define QPP_WINOGRAD4_OUTPUT(name, dst, src, needs) void name(const WinogradOutputArgs& args);
#define QPP_QUANTIZE(name, needs) void name(const QuantizeArgs& args);
#define QPP_DEQUANTIZE(name, needs) void name(const DequantizeArgs& args);
#define QPP_SPARSIFY(name, dst, src, needs) std::uint32_t name(const SparsifyArgs& args);
#define QPP_DENSIFY(name, needs) void name(const DensifyArgs& args);
#define QPP_SPMM(name, dst, src, weights, needs) bool name(const SpmmArgs& args);
#define QPP_MINMAX(name, needs) void name(const MinMaxArgs& args);
#define QPP_MEAN(name, needs) void name(const MeanArgs& args);
#define QPP_DEVIATION(name, needs) void name(const DeviationArgs& args);
#define QPP_QUANTILE(name, needs) void name(const QuantileArgs& args);
#define QPP_ADD(name, dst, src, needs) void name(const BinaryArgs& args);
#define QPP_MUL(name, dst, src, needs) void name(const BinaryArgs& args);
#define QPP_DEPTHWISE(name, dst, src, weights, needs) void name(const DepthwiseArgs& args);
#define QPP_ACTIVATION(name, needs) void name(const ActivationArgs& args);
#define QPP_RESIZE(name, dst, src, needs) void name(const ResizeArgs& args);
#define QPP_MAXPOOL(name, dst, src, needs) void name(const PoolArgs& args);
#define QPP_AVGPOOL(name, dst, src, needs) void name(const PoolArgs& args);
#include "kernels/variants.inc"

}  // namespace qpp
