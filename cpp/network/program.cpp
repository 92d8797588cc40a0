// SPDX-License-Identifier: Apache-2.0
#include "network/program.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "network/int8_plan.h"
#include "ops/quantize.h"
#include "ops/sparsify.h"

namespace qpp {
namespace {

class Lowering {
 public:
  Lowering(const Model& model, const ProgramOptions& options, const KernelSelection& selection)
      : model_(model),
        scheme_(options.scheme),
        activation_bits_(options.activation_bits),
        algorithm_(options.algorithm),
        density_(options.density),
        selection_(selection),
        bounds_(model.quantization ? model.quantization->find_bounds(density_) : nullptr),
        int8_(scheme_ != Scheme::fp16 && scheme_ != Scheme::measure),
        plan_(plan_int8(model.nodes)) {
    if (options.residual_dtype == ResidualDType::fp16)
      plan_.int8_inputs = count_int8_inputs(model.nodes, options.residual_dtype);
    for (std::size_t i = 0; i < model.nodes.size(); ++i) {
      if (plan_.int8_inputs[i] == 0 || !model.nodes[i].operation.int8_obstacle) continue;
      plan_.int8_inputs[i] = 0;
      if (int8_) without_int8_.insert(model.nodes[i].name);
    }
    for (const Node& node : model.nodes) {
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const std::string& input = node.inputs[i];
        ++(reads_int8(node, i) ? uses_[input].int8 : uses_[input].fp16);
        if (reads_int8(node, i)) needed_rows_.insert(group_of(input));
      }
    }
    for (const std::string& output : model.outputs) ++uses_[output].fp16;
    if (scheme_ == Scheme::qpp || scheme_ == Scheme::measure) {
      find_feature_sources();
    }
  }

  Program lower() {
    program_.value_elements = model_.limits.value_elements;
    for (const Model::Input& input : model_.inputs) {
      const int buffer = buffer_of(input.name, DType::f16);
      program_.inputs.push_back(buffer);
      finish_fp16(input.name, /*range_measured=*/false);
    }
    for (const Node& node : model_.nodes) lower_node(node);
    for (const std::string& output : model_.outputs)
      program_.outputs.push_back(buffer_of(output, DType::f16));
    return std::move(program_);
  }

 private:
  struct Uses {
    int int8 = 0;
    int fp16 = 0;
  };

  /// With a density, only operations that also quantize read int8, and no residuals.
  [[nodiscard]] bool reads_int8(const Node& node, std::size_t input = 0) const {
    if (!int8_ || (density_ && (input > 0 || !node.operation.quantizes_fp16))) return false;
    return input < plan_.int8_inputs[static_cast<std::size_t>(&node - model_.nodes.data())];
  }

  [[nodiscard]] const std::string& group_of(const std::string& value) const {
    const auto found = plan_.groups.find(value);
    return found == plan_.groups.end() ? value : found->second;
  }

  [[nodiscard]] int row_of(const std::string& value) const {
    const auto copy = copied_rows_.find(value);
    return copy == copied_rows_.end() ? group_row(value) : copy->second;
  }

  [[nodiscard]] int group_row(const std::string& value) const {
    return model_.quantization ? model_.quantization->row(group_of(value)) : -1;
  }

  /// Makes a row of its own for a dense + sparse value that shares another's.
  void copy_row(const std::string& value) {
    const auto rows = model_.quantization->values.size() + program_.copied_rows.size();
    copied_rows_[value] = static_cast<int>(rows);
    program_.copied_rows.push_back(group_row(value));
    add(value, std::make_unique<CopyQParams>(group_row(value), static_cast<int>(rows)), {}, -1);
  }

  /// True when predictors read features of the value.
  [[nodiscard]] bool is_feature_source(const std::string& value) const {
    return feature_targets_.contains(value);
  }

  /// True when the bounds of the value come from the value itself.
  [[nodiscard]] bool measures_bounds(const std::string& value) const {
    if (row_of(value) < 0 || group_of(value) != value) return false;
    return scheme_ == Scheme::measure ||
           (scheme_ == Scheme::dynamic && needed_rows_.contains(value));
  }

  int buffer_of(const std::string& value, DType dtype) {
    const auto [found, inserted] =
        buffers_.emplace(std::pair{value, dtype}, static_cast<int>(program_.buffers.size()));
    if (inserted) {
      const bool quantized = dtype == DType::qai8;
      program_.buffers.push_back(
          {value, dtype, quantized ? row_of(value) : -1, quantized && density_.has_value()});
    }
    return found->second;
  }

  void add(const std::string& node, std::unique_ptr<Op> op, std::vector<int> inputs, int output) {
    packed_bytes_ += op->weight_bytes();
    check_limit(model_.limits, &Limits::packed_bytes, packed_bytes_, "model '", model_.name,
                "': the bytes of packed constants");
    program_.steps.push_back({node, std::move(op), std::move(inputs), output, ""});
  }

  void lower_node(const Node& node) {
    const OpTypes types = types_of(node);
    std::vector<int> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      inputs.push_back(buffer_of(node.inputs[i], types.inputs[i].dtype));
    const int output = buffer_of(node.output, types.output.dtype);
    add(node.name, node.operation.make(types, {.selection = selection_, .algorithm = algorithm_}),
        std::move(inputs), output);
    if (without_int8_.contains(node.name))
      program_.steps.back().note = *node.operation.int8_obstacle;
    if (types.output.dtype == DType::f16) {
      finish_fp16(node.output, types.range_row >= 0);
    } else if (uses_[node.output].fp16 > 0 || is_feature_source(node.output)) {
      const int fp16 = buffer_of(node.output, DType::f16);
      add(node.output, std::make_unique<Dequantize>(types.output.row, selection_), {output}, fp16);
      predict_after(node.output, fp16);
    }
  }

  [[nodiscard]] OpTypes types_of(const Node& node) {
    OpTypes types;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      types.inputs.push_back(operand(node.inputs[i], reads_int8(node, i)));
    types.output = operand(node.output, stores_int8(node));
    if (node.operation.measures_range && measures_bounds(node.output))
      types.range_row = row_of(node.output);
    return types;
  }

  [[nodiscard]] OperandType operand(const std::string& value, bool int8) const {
    if (!int8) return {};
    return {.dtype = DType::qai8, .row = row_of(value), .sparse = density_.has_value()};
  }

  /// Whether a node stores int8 itself. Its output is otherwise fp16, and quantized from that.
  [[nodiscard]] bool stores_int8(const Node& node) {
    if (node.int8.role == Int8Role::shares_qparams) return reads_int8(node);
    if (!reads_int8(node) && !node.operation.quantizes_fp16) return false;
    // The bounds must be known before the first store, so cannot depend on the value itself.
    const Uses uses = uses_[node.output];
    return uses.int8 > 0 && uses.fp16 == 0 && !measures_bounds(node.output) &&
           !is_feature_source(node.output);
  }

  /// Everything that follows an fp16 value: who writes rows because of it, and its int8 copy.
  void finish_fp16(const std::string& value, bool range_measured) {
    const int fp16 = buffer_of(value, DType::f16);
    predict_after(value, fp16);
    if (measures_bounds(value)) {
      add(value,
          std::make_unique<ChooseQParams>(ChooseQParams::Spec{.value = value,
                                                              .targets = targets_of(value),
                                                              .bits = activation_bits_,
                                                              .range_measured = range_measured},
                                          selection_),
          {fp16}, -1);
    }
    if (uses_[value].int8 > 0) {
      std::unique_ptr<Op> quantize;
      if (density_) {
        if (group_of(value) != value) copy_row(value);
        quantize = std::make_unique<Sparsify>(row_of(value), selection_);
      } else {
        quantize = std::make_unique<Quantize>(row_of(value), selection_);
      }
      add(value, std::move(quantize), {fp16}, buffer_of(value, DType::qai8));
    }
  }

  /// The rows that a value's own bounds are written to. Calibration measures those of every alpha,
  /// each in a table of its own behind the one before.
  [[nodiscard]] std::vector<ChooseQParams::Target> targets_of(const std::string& value) const {
    const Quantization& quantization = *model_.quantization;
    int row = row_of(value);
    if (scheme_ != Scheme::measure)
      return {{.row = row, .alpha = density_ ? 1 - *density_ : quantization.bounds[0].alpha}};
    std::vector<ChooseQParams::Target> targets;
    for (const Bounds& bounds : quantization.bounds) {
      targets.push_back({.row = row, .alpha = bounds.alpha});
      row += static_cast<int>(quantization.values.size());
    }
    return targets;
  }

  void find_feature_sources() {
    const Quantization& quantization = *model_.quantization;
    const std::size_t columns = quantization.feature_columns();
    for (std::size_t p = 0; p < quantization.predictors.size(); ++p) {
      const Predictor& predictor = quantization.predictors[p];
      for (std::size_t i = 0; i < predictor.features.size(); ++i) {
        const Feature& feature = predictor.features[i];
        feature_targets_[feature.value].push_back(
            {.feature = feature.spec, .slot = p * columns + i});
      }
      completed_predictors_[predictor.last_source].push_back(p);
    }
  }

  /// Measures the features of a value, and predicts the rows of the predictors that have all
  /// features by now.
  void predict_after(const std::string& value, int fp16) {
    if (!is_feature_source(value)) return;
    add(value,
        std::make_unique<MeasureFeatures>(
            MeasureFeatures::Spec{.value = value, .targets = feature_targets_[value]}, selection_),
        {fp16}, -1);
    if (scheme_ != Scheme::qpp) return;
    const Quantization& quantization = *model_.quantization;
    for (const std::size_t index : completed_predictors_[value]) {
      const Predictor& predictor = quantization.predictors[index];
      PredictQParams::Spec predict{.targets = {},
                                   .first_slot = index * quantization.feature_columns(),
                                   .weight = bounds_->regressors[index].weight,
                                   .bias = bounds_->regressors[index].bias,
                                   .transform = predictor.target_transform,
                                   .bits = activation_bits_};
      for (const int row : predictor.rows) {
        predict.targets.push_back(
            {.row = row,
             .calibrated_range = bounds_->calibrated_range[static_cast<std::size_t>(row)]});
      }
      add(value, std::make_unique<PredictQParams>(std::move(predict)), {}, -1);
    }
  }

  const Model& model_;
  Scheme scheme_;
  int activation_bits_;
  Algorithm algorithm_;
  std::optional<double> density_;
  const KernelSelection& selection_;
  const Bounds* bounds_;  // null where nothing but the values themselves tells any
  bool int8_;
  Int8Plan plan_;
  // By the value that predictors read features of: these, and the predictors that have all features
  // once these are measured.
  std::map<std::string, std::vector<MeasureFeatures::Target>> feature_targets_;
  std::map<std::string, std::vector<std::size_t>> completed_predictors_;
  std::map<std::string, Uses> uses_;
  std::set<std::string> without_int8_;  // nodes with an obstacle to the int8 that the plan has
  std::set<std::string> needed_rows_;   // values whose rows int8 values are held with
  std::map<std::pair<std::string, DType>, int> buffers_;
  std::map<std::string, int> copied_rows_;  // of values that share the row of another
  std::size_t packed_bytes_ = 0;
  Program program_;
};

void check_scheme(const Model& model, Scheme scheme) {
  if (scheme == Scheme::fp16) return;
  QPP_CHECK(model.quantization, UnsupportedError, "model '", model.name,
            "': this scheme needs a calibrated model, got one without calibration; run "
            "qppengine.calibrate and save its result");
  const Bounds& bounds = model.quantization->bounds[0];
  QPP_CHECK(scheme != Scheme::fixed || !bounds.of_static.empty(), UnsupportedError, "model '",
            model.name, "': scheme \"static\" needs static bounds, the file has none");
  const bool fitted = bounds.regressors.size() == model.quantization->predictors.size();
  QPP_CHECK(scheme != Scheme::qpp || fitted, UnsupportedError, "model '", model.name,
            "': scheme \"qpp\" needs fitted predictors, the file has none");
}

void check_density(const Model& model, Scheme scheme, double density) {
  QPP_CHECK(density > 0 && density <= kLargestDensity, UnsupportedError,
            "density: expected a number above 0 and up to ", kLargestDensity, ", got ", density);
  QPP_CHECK(scheme != Scheme::fp16 && scheme != Scheme::measure, UnsupportedError,
            "density: expected a scheme that quantizes");
  if (scheme == Scheme::dynamic) return;
  // Dynamic quantization measures whatever bounds it is asked for; the others have the file's.
  std::string known;
  for (const double other : model.quantization->densities)
    known += concat(known.empty() ? "" : ", ", other);
  QPP_CHECK(model.quantization->find_bounds(density) != nullptr, UnsupportedError, "model '",
            model.name, "': expected a density that the file is calibrated for (",
            known.empty() ? "none" : known, "), got ", density, "; calibrate with densities=[",
            density, "], or take scheme \"dynamic\"");
}

}  // namespace

Scheme parse_scheme(const std::string& name) {
  static const std::map<std::string, Scheme> kSchemes = {{"fp16", Scheme::fp16},
                                                         {"static", Scheme::fixed},
                                                         {"dynamic", Scheme::dynamic},
                                                         {"qpp", Scheme::qpp},
                                                         {"measure", Scheme::measure}};
  const auto found = kSchemes.find(name);
  QPP_CHECK(found != kSchemes.end(), UnsupportedError,
            "scheme: expected fp16, static, dynamic or qpp, got \"", name, "\"");
  return found->second;
}

ResidualDType parse_residual_dtype(const std::string& name) {
  if (name == "int8") return ResidualDType::int8;
  if (name == "fp16") return ResidualDType::fp16;
  throw UnsupportedError(
      concat("residual_dtype: expected \"int8\" or \"fp16\", got \"", name, "\""));
}

Program lower(const Model& model, const ProgramOptions& options, const KernelSelection& selection) {
  check_scheme(model, options.scheme);
  if (options.density) check_density(model, options.scheme, *options.density);
  return Lowering(model, options, selection).lower();
}

}  // namespace qpp
