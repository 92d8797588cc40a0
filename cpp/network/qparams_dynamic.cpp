// SPDX-License-Identifier: Apache-2.0
//
// Scheme "dynamic": every value of every sample is measured, and quantized afterwards.

#include "network/qparams_source.h"
#include "ops/statistics.h"

namespace qpp {
namespace {

class DynamicSource final : public QParamsSource {
 public:
  DynamicSource(double alpha, int bits) : alpha_(alpha), bits_(bits) {}

  [[nodiscard]] bool stores_fp16() const override { return true; }
  [[nodiscard]] bool reads(const ValueInfo& value) const override {
    return value.row >= 0 && value.row_is_read;
  }
  [[nodiscard]] bool reads_range(const ValueInfo& value) const override { return reads(value); }

  [[nodiscard]] std::vector<SourceStep> steps_after(const ValueInfo& value, bool range_measured,
                                                    const KernelSelection& kernels) const override {
    std::vector<SourceStep> steps;
    steps.push_back({std::make_unique<ChooseQParams>(
        ChooseQParams::Spec{.value = value.name,
                            .targets = {{.row = value.row, .alpha = alpha_}},
                            .bits = bits_,
                            .range_measured = range_measured},
        kernels)});
    return steps;
  }

 private:
  double alpha_;
  int bits_;
};

}  // namespace

std::unique_ptr<QParamsSource> make_dynamic_source(const Model& model,
                                                   const SessionOptions& options) {
  const Quantization& quantization = require_quantization(model);
  const double alpha = options.density ? 1 - *options.density : quantization.bounds[0].alpha;
  return std::make_unique<DynamicSource>(alpha, options.activation_bits);
}

}  // namespace qpp
