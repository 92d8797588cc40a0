// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "network/model.h"
#include "network/qp_table.h"
#include "network/session_options.h"
#include "ops/op.h"

namespace qpp {

/// A value of the network, as the lowering shows it to a source.
struct ValueInfo {
  const std::string& name;
  int row = -1;              // of the QP table; -1: not quantized, or has the row of another value
  bool row_is_read = false;  // some int8 value has the parameters of the row
};

/// A step after an fp16 value, which it reads or not.
struct SourceStep {
  std::unique_ptr<Op> op;
  bool reads_value = true;
};

/// Where the rows of the QP table come from: one implementation per scheme. The lowering asks which
/// bounds are known before a value is stored, and adds the steps that measure or predict the
/// others. A source does not refer to the model, which a session does not keep.
class QParamsSource {
 public:
  QParamsSource() = default;
  virtual ~QParamsSource() = default;
  QParamsSource(const QParamsSource&) = delete;
  QParamsSource& operator=(const QParamsSource&) = delete;

  /// False for a source that only measures: all values stay in fp16.
  [[nodiscard]] virtual bool quantizes() const { return true; }
  /// True where all values exist in fp16 before they are quantized, so that residual additions read
  /// fp16 at no cost.
  [[nodiscard]] virtual bool stores_fp16() const { return false; }
  /// Tables with one row per value; those after the first are reported only.
  [[nodiscard]] virtual std::size_t table_count() const { return 1; }
  /// Whether steps_after() needs the value in fp16. Its own bounds, if it has a row, are then not
  /// known before it is stored.
  [[nodiscard]] virtual bool reads(const ValueInfo& /*value*/) const { return false; }
  /// Whether steps_after() can use the range of the value, where its producer measures that.
  [[nodiscard]] virtual bool reads_range(const ValueInfo& /*value*/) const { return false; }
  /// The steps that run once the value exists in fp16, in order. `range_measured`: RunState::ranges
  /// has the range of its row.
  [[nodiscard]] virtual std::vector<SourceStep> steps_after(
      const ValueInfo& /*value*/, bool /*range_measured*/,
      const KernelSelection& /*kernels*/) const {
    return {};
  }
  /// Writes the rows that do not depend on a sample, when a session opens.
  virtual void fill_rows(QpTable& /*table*/) const {}
  /// Adds the statistics that only this scheme has.
  virtual void report(const QpTable& /*table*/, SessionStats& /*stats*/) const {}
};

/// A row of schemes.inc.
struct Scheme {
  const char* name;
  /// Null for a scheme that does not quantize. Throws UnsupportedError when the file lacks the
  /// data of the scheme.
  std::unique_ptr<QParamsSource> (*make_source)(const Model& model, const SessionOptions& options);
};

/// Throws UnsupportedError.
const Scheme& find_scheme(const std::string& name);

/// The calibration of a model. Throws UnsupportedError where it has none.
const Quantization& require_quantization(const Model& model);

/// The bounds that the file has for the density of the options. Throws UnsupportedError.
const Bounds& require_bounds(const Model& model, const SessionOptions& options);

}  // namespace qpp
