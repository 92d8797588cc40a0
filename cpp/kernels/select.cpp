// SPDX-License-Identifier: Apache-2.0
#include "kernels/select.h"

#include <cstdlib>
#include <string>

#include "base/check.h"
#include "kernels/variants.h"

namespace qpp {

const std::vector<ConvKernel>& conv_kernels() {
  static const std::vector<ConvKernel> kernels = {
#define QPP_CONV(name, family, dst, src, weights, mr, nr, kr, needs) \
  {{#name, needs}, ConvFamily::family, DType::dst, DType::src, DType::weights, mr, nr, kr, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<WinogradInputKernel>& winograd4_input_kernels() {
  static const std::vector<WinogradInputKernel> kernels = {
#define QPP_WINOGRAD4_INPUT(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<WinogradMultiplyKernel>& winograd4_multiply_kernels() {
  static const std::vector<WinogradMultiplyKernel> kernels = {
#define QPP_WINOGRAD4_MULTIPLY(name, dst, src, weights, needs) \
  {{#name, needs}, DType::dst, DType::src, DType::weights, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<WinogradOutputKernel>& winograd4_output_kernels() {
  static const std::vector<WinogradOutputKernel> kernels = {
#define QPP_WINOGRAD4_OUTPUT(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<QuantizeKernel>& quantize_kernels() {
  static const std::vector<QuantizeKernel> kernels = {
#define QPP_QUANTIZE(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<DequantizeKernel>& dequantize_kernels() {
  static const std::vector<DequantizeKernel> kernels = {
#define QPP_DEQUANTIZE(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<SparsifyKernel>& sparsify_kernels() {
  static const std::vector<SparsifyKernel> kernels = {
#define QPP_SPARSIFY(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<DensifyKernel>& densify_kernels() {
  static const std::vector<DensifyKernel> kernels = {
#define QPP_DENSIFY(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<SpmmKernel>& spmm_kernels() {
  static const std::vector<SpmmKernel> kernels = {
#define QPP_SPMM(name, dst, src, weights, needs) \
  {{#name, needs}, DType::dst, DType::src, DType::weights, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<MinMaxKernel>& minmax_kernels() {
  static const std::vector<MinMaxKernel> kernels = {
#define QPP_MINMAX(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<MeanKernel>& mean_kernels() {
  static const std::vector<MeanKernel> kernels = {
#define QPP_MEAN(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<DeviationKernel>& deviation_kernels() {
  static const std::vector<DeviationKernel> kernels = {
#define QPP_DEVIATION(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<QuantileKernel>& quantile_kernels() {
  static const std::vector<QuantileKernel> kernels = {
#define QPP_QUANTILE(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<BinaryKernel>& add_kernels() {
  static const std::vector<BinaryKernel> kernels = {
#define QPP_ADD(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<BinaryKernel>& mul_kernels() {
  static const std::vector<BinaryKernel> kernels = {
#define QPP_MUL(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<PoolKernel>& maxpool_kernels() {
  static const std::vector<PoolKernel> kernels = {
#define QPP_MAXPOOL(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<PoolKernel>& avgpool_kernels() {
  static const std::vector<PoolKernel> kernels = {
#define QPP_AVGPOOL(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<ResizeKernel>& resize_kernels() {
  static const std::vector<ResizeKernel> kernels = {
#define QPP_RESIZE(name, dst, src, needs) {{#name, needs}, DType::dst, DType::src, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<DepthwiseKernel>& depthwise_kernels() {
  static const std::vector<DepthwiseKernel> kernels = {
#define QPP_DEPTHWISE(name, dst, src, weights, needs) \
  {{#name, needs}, DType::dst, DType::src, DType::weights, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

const std::vector<ActivationKernel>& activation_kernels() {
  static const std::vector<ActivationKernel> kernels = {
#define QPP_ACTIVATION(name, needs) {{#name, needs}, name},
#include "kernels/variants.inc"
  };
  return kernels;
}

std::vector<KernelInfo> all_kernels() {
  std::vector<KernelInfo> all;
  const auto append = [&all](const auto& kernels) {
    for (const auto& kernel : kernels) all.push_back(kernel.info);
  };
  append(conv_kernels());
  append(winograd4_input_kernels());
  append(winograd4_multiply_kernels());
  append(winograd4_output_kernels());
  append(quantize_kernels());
  append(dequantize_kernels());
  append(sparsify_kernels());
  append(densify_kernels());
  append(spmm_kernels());
  append(minmax_kernels());
  append(mean_kernels());
  append(deviation_kernels());
  append(quantile_kernels());
  append(add_kernels());
  append(mul_kernels());
  append(maxpool_kernels());
  append(avgpool_kernels());
  append(resize_kernels());
  append(activation_kernels());
  append(depthwise_kernels());
  return all;
}

namespace {

bool is_reference(const KernelInfo& info) { return std::string_view(info.name).ends_with("_ref"); }

/// The last row that `fits` and is allowed; the row forced by name before all others.
template <typename Kernel, typename Fits>
const Kernel* last_match(const std::vector<Kernel>& kernels, const KernelSelection& selection,
                         std::string_view forced, const Fits& fits) {
  const Kernel* match = nullptr;
  for (const Kernel& kernel : kernels) {
    if (!fits(kernel) || !selection.allows(kernel.info)) continue;
    if (forced == kernel.info.name) return &kernel;
    match = &kernel;
  }
  return match;
}

template <typename Kernel>
const Kernel& last_match(const std::vector<Kernel>& kernels, const KernelSelection& selection,
                         std::string_view forced) {
  const Kernel* match = last_match(kernels, selection, forced, [](const Kernel&) { return true; });
  QPP_ASSUME(match != nullptr);
  return *match;
}

template <typename Kernel>
const Kernel& last_match(const std::vector<Kernel>& kernels, const KernelSelection& selection,
                         std::string_view forced, DType dst, DType src) {
  const Kernel* match = last_match(kernels, selection, forced, [=](const Kernel& kernel) {
    return kernel.dst == dst && kernel.src == src;
  });
  QPP_ASSUME(match != nullptr);
  return *match;
}

/// Whether two convolutions of the same sources read the same packed weights.
bool share_weights(const ConvKernel& a, const ConvKernel& b) {
  return a.src == b.src && a.weights == b.weights && a.mr == b.mr && a.nr == b.nr && a.kr == b.kr;
}

}  // namespace

KernelSelection KernelSelection::from_environment() {
  const char* forced = std::getenv("QPP_FORCE_KERNEL");
  return {detect_cpu_features(), forced == nullptr ? "" : forced};
}

KernelSelection::KernelSelection(const CpuFeatures& cpu, std::string_view forced)
    : cpu_(cpu), forced_(forced) {
  if (forced.empty() || forced == "ref" || forced == "neon" || forced == "x86") return;
  for (const KernelInfo& info : all_kernels()) {
    if (forced != info.name) continue;
    QPP_CHECK(cpu.covers(info.needs), UnsupportedError, "QPP_FORCE_KERNEL=", forced,
              ": this CPU cannot run that kernel");
    return;
  }
  throw UnsupportedError(concat("QPP_FORCE_KERNEL=", forced,
                                ": expected \"ref\", \"neon\", \"x86\" or the name of a kernel"));
}

bool KernelSelection::allows(const KernelInfo& info) const {
  return cpu_.covers(info.needs) && (forced_ != "ref" || is_reference(info));
}

const ConvKernel& KernelSelection::conv(DType dst, DType src) const {
  const ConvKernel* match =
      last_match(conv_kernels(), *this, forced_, [&](const ConvKernel& kernel) {
        return kernel.family == ConvFamily::conv && kernel.dst == dst && kernel.src == src;
      });
  QPP_ASSUME(match != nullptr);
  return *match;
}

const ConvKernel& KernelSelection::conv_to(DType dst, const ConvKernel& general) const {
  const ConvKernel* match =
      last_match(conv_kernels(), *this, forced_, [&](const ConvKernel& kernel) {
        return kernel.family == ConvFamily::conv && kernel.dst == dst &&
               share_weights(kernel, general);
      });
  QPP_ASSUME(match != nullptr);
  return *match;
}

const ConvKernel* KernelSelection::conv3x3s1(const ConvKernel& general) const {
  return last_match(conv_kernels(), *this, forced_, [&](const ConvKernel& kernel) {
    return kernel.family == ConvFamily::conv3x3s1 && kernel.dst == general.dst &&
           share_weights(kernel, general);
  });
}

Winograd4Kernels KernelSelection::winograd4(DType dst, DType src) const {
  const WinogradMultiplyKernel& multiply = last_match(winograd4_multiply_kernels(), *this, forced_);
  const Winograd4Kernels kernels{
      .input = last_match(winograd4_input_kernels(), *this, forced_,
                          [&](const WinogradInputKernel& kernel) {
                            return kernel.src == src && kernel.dst == multiply.src;
                          }),
      .multiply = &multiply,
      .output = last_match(winograd4_output_kernels(), *this, forced_,
                           [&](const WinogradOutputKernel& kernel) {
                             return kernel.dst == dst && kernel.src == multiply.dst;
                           })};
  QPP_ASSUME(kernels.input != nullptr && kernels.output != nullptr);
  return kernels;
}

const QuantizeKernel& KernelSelection::quantize() const {
  return last_match(quantize_kernels(), *this, forced_);
}
const DequantizeKernel& KernelSelection::dequantize() const {
  return last_match(dequantize_kernels(), *this, forced_);
}
const SparsifyKernel& KernelSelection::sparsify(DType src) const {
  return last_match(sparsify_kernels(), *this, forced_, DType::qai8, src);
}
const DensifyKernel& KernelSelection::densify() const {
  return last_match(densify_kernels(), *this, forced_);
}
const SpmmKernel& KernelSelection::spmm() const {
  return last_match(spmm_kernels(), *this, forced_);
}
const MinMaxKernel& KernelSelection::minmax() const {
  return last_match(minmax_kernels(), *this, forced_);
}
const MeanKernel& KernelSelection::mean() const {
  return last_match(mean_kernels(), *this, forced_);
}
const DeviationKernel& KernelSelection::deviation() const {
  return last_match(deviation_kernels(), *this, forced_);
}
const QuantileKernel& KernelSelection::quantile() const {
  return last_match(quantile_kernels(), *this, forced_);
}

const BinaryKernel& KernelSelection::add(DType dst, DType src) const {
  return last_match(add_kernels(), *this, forced_, dst, src);
}
const BinaryKernel& KernelSelection::mul(DType dst, DType src) const {
  return last_match(mul_kernels(), *this, forced_, dst, src);
}
const PoolKernel& KernelSelection::avgpool(DType dst, DType src) const {
  return last_match(avgpool_kernels(), *this, forced_, dst, src);
}
const PoolKernel& KernelSelection::maxpool(DType dtype) const {
  return last_match(maxpool_kernels(), *this, forced_, dtype, dtype);
}
const ResizeKernel& KernelSelection::resize(DType dtype) const {
  return last_match(resize_kernels(), *this, forced_, dtype, dtype);
}
const ActivationKernel& KernelSelection::activation() const {
  return last_match(activation_kernels(), *this, forced_);
}
const DepthwiseKernel& KernelSelection::depthwise(DType dst, DType src) const {
  return last_match(depthwise_kernels(), *this, forced_, dst, src);
}

}  // namespace qpp
