// SPDX-License-Identifier: Apache-2.0
#include "network/qparams_source.h"

#include "base/join.h"

namespace qpp {

#define QPP_SCHEME(name, make) \
  std::unique_ptr<QParamsSource> make(const Model& model, const SessionOptions& options);
#include "network/schemes.inc"

std::unique_ptr<QParamsSource> make_no_source(const Model& /*model*/,
                                              const SessionOptions& /*options*/) {
  return nullptr;
}

const Scheme& find_scheme(const std::string& name) {
  static constexpr Scheme kSchemes[] = {
#define QPP_SCHEME(name, make) {name, &(make)},
#include "network/schemes.inc"
  };
  for (const Scheme& scheme : kSchemes) {
    if (scheme.name == name) return scheme;
  }
  throw UnsupportedError(
      concat("scheme: expected one of ", join(kSchemes, &Scheme::name), ", got \"", name, "\""));
}

const Quantization& require_quantization(const Model& model) {
  QPP_CHECK(model.quantization, UnsupportedError, "model '", model.name,
            "': this scheme needs a calibrated model, got one without calibration; run "
            "qppengine.calibrate and save its result");
  return *model.quantization;
}

const Bounds& require_bounds(const Model& model, const SessionOptions& options) {
  const Quantization& quantization = require_quantization(model);
  const Bounds* bounds = quantization.find_bounds(options.density);
  if (bounds != nullptr) return *bounds;
  const std::string known = join(quantization.densities);
  throw UnsupportedError(
      concat("model '", model.name, "': expected a density that the file is calibrated for (",
             known.empty() ? "none" : known, "), got ", *options.density,
             "; calibrate with densities=[", *options.density, "], or take scheme \"dynamic\""));
}

}  // namespace qpp
