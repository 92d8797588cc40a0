// SPDX-License-Identifier: Apache-2.0
//
// Scheme "static": the bounds of the file, the same for all samples.

#include <algorithm>

#include "network/qparams_source.h"

namespace qpp {
namespace {

class StaticSource final : public QParamsSource {
 public:
  explicit StaticSource(std::vector<QParams> rows) : rows_(std::move(rows)) {}

  void fill_rows(QpTable& table) const override {
    std::copy(rows_.begin(), rows_.end(), table.qparams.begin());
  }

 private:
  std::vector<QParams> rows_;
};

}  // namespace

std::unique_ptr<QParamsSource> make_static_source(const Model& model,
                                                  const SessionOptions& options) {
  const Bounds& bounds = require_bounds(model, options);
  QPP_CHECK(!bounds.of_static.empty(), UnsupportedError, "model '", model.name,
            "': scheme \"static\" needs static bounds, the file has none");
  const std::string rule = options.static_bounds.value_or(model.quantization->default_static);
  const auto found = bounds.of_static.find(rule);
  QPP_CHECK(found != bounds.of_static.end(), UnsupportedError, "static_bounds: model '", model.name,
            "' has no bounds \"", rule, "\"; expected \"mean\" or \"range\"");
  std::vector<QParams> rows;
  for (const Range& range : found->second)
    rows.push_back(choose_qparams(range.lo, range.hi, options.activation_bits));
  return std::make_unique<StaticSource>(std::move(rows));
}

}  // namespace qpp
