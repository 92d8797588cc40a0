// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

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

namespace qpp {

/// The kernels of a Winograd convolution, which agree about the type of V and M.
struct Winograd4Kernels {
  const WinogradInputKernel* input;
  const WinogradMultiplyKernel* multiply;
  const WinogradOutputKernel* output;
};

/// Which rows of variants.inc may be chosen on a CPU. QPP_FORCE_KERNEL narrows them: "ref",
/// "neon" or "x86" keep one engine (the reference still serves where the others have nothing), a
/// full name is chosen wherever its family and types fit.
class KernelSelection {
 public:
  /// For the running CPU and the environment variable. Throws UnsupportedError for a name that does
  /// not exist or that this CPU cannot run.
  static KernelSelection from_environment();
  KernelSelection(const CpuFeatures& cpu, std::string_view forced);

  /// The general convolution for these types; it always exists.
  [[nodiscard]] const ConvKernel& conv(DType dst, DType src) const;
  /// The general convolution to another type that shares the packed weights of `general`, which
  /// reads int8; it always exists.
  [[nodiscard]] const ConvKernel& conv_to(DType dst, const ConvKernel& general) const;
  /// The 3x3 stride 1 interior kernel that shares the packed weights of `general`, or null.
  [[nodiscard]] const ConvKernel* conv3x3s1(const ConvKernel& general) const;
  /// The 3x3 stride 1 convolution by Winograd's algorithm for these types; it always exists.
  [[nodiscard]] Winograd4Kernels winograd4(DType dst, DType src) const;
  [[nodiscard]] const QuantizeKernel& quantize() const;
  [[nodiscard]] const DequantizeKernel& dequantize() const;
  /// From f16 or qai16.
  [[nodiscard]] const SparsifyKernel& sparsify(DType src) const;
  [[nodiscard]] const DensifyKernel& densify() const;
  [[nodiscard]] const SpmmKernel& spmm() const;
  [[nodiscard]] const MinMaxKernel& minmax() const;
  [[nodiscard]] const MeanKernel& mean() const;
  [[nodiscard]] const DeviationKernel& deviation() const;
  [[nodiscard]] const QuantileKernel& quantile() const;
  /// f16 from f16, f16 from qai8 or qai8 from qai8.
  [[nodiscard]] const BinaryKernel& add(DType dst, DType src) const;
  [[nodiscard]] const BinaryKernel& mul(DType dst, DType src) const;
  [[nodiscard]] const PoolKernel& avgpool(DType dst, DType src) const;
  /// f16 or qai8.
  [[nodiscard]] const PoolKernel& maxpool(DType dtype) const;
  [[nodiscard]] const ResizeKernel& resize(DType dtype) const;
  [[nodiscard]] const ActivationKernel& activation() const;
  [[nodiscard]] const DepthwiseKernel& depthwise(DType dst, DType src) const;

  [[nodiscard]] bool allows(const KernelInfo& info) const;

 private:
  CpuFeatures cpu_;
  std::string forced_;
};

/// All rows of variants.inc, in order.
const std::vector<ConvKernel>& conv_kernels();
const std::vector<WinogradInputKernel>& winograd4_input_kernels();
const std::vector<WinogradMultiplyKernel>& winograd4_multiply_kernels();
const std::vector<WinogradOutputKernel>& winograd4_output_kernels();
const std::vector<QuantizeKernel>& quantize_kernels();
const std::vector<DequantizeKernel>& dequantize_kernels();
const std::vector<SparsifyKernel>& sparsify_kernels();
const std::vector<DensifyKernel>& densify_kernels();
const std::vector<SpmmKernel>& spmm_kernels();
const std::vector<MinMaxKernel>& minmax_kernels();
const std::vector<MeanKernel>& mean_kernels();
const std::vector<DeviationKernel>& deviation_kernels();
const std::vector<QuantileKernel>& quantile_kernels();
const std::vector<BinaryKernel>& add_kernels();
const std::vector<BinaryKernel>& mul_kernels();
const std::vector<PoolKernel>& maxpool_kernels();
const std::vector<PoolKernel>& avgpool_kernels();
const std::vector<ResizeKernel>& resize_kernels();
const std::vector<ActivationKernel>& activation_kernels();
const std::vector<DepthwiseKernel>& depthwise_kernels();
/// The common part of all of them.
std::vector<KernelInfo> all_kernels();

}  // namespace qpp
