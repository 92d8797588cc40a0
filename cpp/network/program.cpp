// SPDX-License-Identifier: Apache-2.0
#include "network/program.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "network/int8_plan.h"
#include "ops/concat.h"
#include "ops/depthwise.h"
#include "ops/pixel_shuffle.h"
#include "ops/quantize.h"
#include "ops/sparsify.h"
#include "ops/winograd.h"

namespace qpp {
namespace {

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

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
        plan_(plan_int8(model)) {
    if (options.residual_dtype == ResidualDType::fp16)
      plan_.int8_inputs = count_int8_inputs_but_in_sums(model);
    for (std::size_t i = 0; i < model.nodes.size(); ++i) {
      const auto* conv = std::get_if<Conv2dSpec>(&model.nodes[i].spec);
      if (plan_.int8_inputs[i] == 0 || conv == nullptr || int8_sums_fit(*conv)) continue;
      plan_.int8_inputs[i] = 0;
      if (int8_) too_large_.insert(model.nodes[i].name);
    }
    for (const Node& node : model.nodes) {
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const std::string& input = node.inputs[i];
        ++(reads_int8(node, i) ? uses_[input].int8 : uses_[input].fp16);
        if (reads_int8(node, i)) needed_rows_.insert(row_owner(input));
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

  /// With a density, only convolutions read int8, and no residuals.
  [[nodiscard]] bool reads_int8(const Node& node, std::size_t input = 0) const {
    if (!int8_ || (density_ && (input > 0 || !quantizes_fp16(node)))) return false;
    return input < plan_.int8_inputs[static_cast<std::size_t>(&node - model_.nodes.data())];
  }

  [[nodiscard]] const std::string& row_owner(const std::string& value) const {
    const auto found = plan_.row_owners.find(value);
    return found == plan_.row_owners.end() ? value : found->second;
  }

  [[nodiscard]] int row_of(const std::string& value) const {
    const auto copy = copied_rows_.find(value);
    return copy == copied_rows_.end() ? owner_row(value) : copy->second;
  }

  [[nodiscard]] int owner_row(const std::string& value) const {
    return model_.quantization ? model_.quantization->row(row_owner(value)) : -1;
  }

  /// Makes a row of its own for a dense + sparse value that shares another's.
  void copy_row(const std::string& value) {
    const auto rows = model_.quantization->values.size() + program_.copied_rows.size();
    copied_rows_[value] = static_cast<int>(rows);
    program_.copied_rows.push_back(owner_row(value));
    add(value, std::make_unique<CopyQParams>(owner_row(value), static_cast<int>(rows)), {}, -1);
  }

  /// True when predictors read features of the value.
  [[nodiscard]] bool is_feature_source(const std::string& value) const {
    return feature_targets_.contains(value);
  }

  /// True when the bounds of the value come from the value itself.
  [[nodiscard]] bool measures_bounds(const std::string& value) const {
    if (row_of(value) < 0 || row_owner(value) != value) return false;
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
    std::visit(Overloaded{
                   [&](const Conv2dSpec& spec) { lower_conv2d(node, spec); },
                   [&](const ActivationSpec& spec) {
                     lower_fp16(node, std::make_unique<Activation>(spec, selection_));
                   },
                   [&](const PixelShuffleSpec& spec) {
                     lower_kept(node, std::make_unique<PixelShuffle>(
                                          node.name, spec.factor, spec.inverse, kept_type(node)));
                   },
                   [&](const FunctionSpec& spec) {
                     lower_fp16(node, std::make_unique<Activation>(spec, selection_));
                   },
                   [&](const BinarySpec& spec) { lower_binary(node, spec); },
                   [&](const PoolSpec& spec) { lower_pool(node, spec); },
                   [&](const ConcatSpec&) { lower_concat(node); },
                   [&](const ResizeSpec& spec) {
                     lower_kept(node, std::make_unique<Resize>(spec, kept_type(node), selection_));
                   },
                   [&](const RearrangeSpec& spec) {
                     lower_kept(node, std::make_unique<Rearrange>(spec, kept_type(node)));
                   },
                   [&](const SliceSpec& spec) { lower_gather(node, spec); },
                   [&](const PadSpec& spec) { lower_gather(node, spec); },
                   [&](const ChannelFunctionSpec& spec) {
                     lower_fp16(node, std::make_unique<OverChannels>(spec));
                   },
               },
               node.spec);
  }

  void lower_fp16(const Node& node, std::unique_ptr<Op> op) {
    const int input = buffer_of(node.inputs[0], DType::f16);
    add(node.name, std::move(op), {input}, buffer_of(node.output, DType::f16));
    finish_fp16(node.output, /*range_measured=*/false);
  }

  /// How a node is run: the type of its inputs, and the type and row of what it computes.
  struct Types {
    DType src = DType::f16;
    DType dst = DType::f16;
    int dst_row = -1;
  };

  /// Whether a node can read fp16 and store int8.
  [[nodiscard]] static bool quantizes_fp16(const Node& node) {
    const auto* conv = std::get_if<Conv2dSpec>(&node.spec);
    return conv != nullptr && conv->groups == 1;
  }

  [[nodiscard]] Types types_of(const Node& node) {
    const Uses uses = uses_[node.output];
    // The bounds are known before the first store unless the value itself, in fp16, has to tell
    // them.
    const bool fused = uses.int8 > 0 && uses.fp16 == 0 && !measures_bounds(node.output) &&
                       !is_feature_source(node.output) &&
                       (reads_int8(node) || quantizes_fp16(node));
    return {.src = reads_int8(node) ? DType::qai8 : DType::f16,
            .dst = fused ? DType::qai8 : DType::f16,
            .dst_row = fused ? row_of(node.output) : -1};
  }

  [[nodiscard]] int src_row(const Node& node, const Types& types, std::size_t input = 0) const {
    return types.src == DType::qai8 ? row_of(node.inputs[input]) : -1;
  }

  void lower_computed(const Node& node, const Types& types, std::unique_ptr<Op> op,
                      bool range_measured = false) {
    std::vector<int> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      inputs.push_back(buffer_of(node.inputs[i], reads_int8(node, i) ? DType::qai8 : DType::f16));
    }
    add(node.name, std::move(op), std::move(inputs), buffer_of(node.output, types.dst));
    if (types.dst == DType::f16) finish_fp16(node.output, range_measured);
  }

  void lower_conv2d(const Node& node, const Conv2dSpec& spec) {
    const Types types = types_of(node);
    // Beside a residual, padded channels hold numbers that are nothing.
    const bool adds = node.inputs.size() > 1;
    const bool measures = measures_bounds(node.output) && spec.groups == 1 &&
                          !(adds && spec.filters % kChannelPadding != 0);
    const int range_row = measures ? row_of(node.output) : -1;
    Conv2dTypes conv{.src = types.src,
                     .dst = types.dst,
                     .sparse_src = density_ && types.src == DType::qai8,
                     .sparse_dst = density_ && types.dst == DType::qai8,
                     .src_row = src_row(node, types),
                     .dst_row = types.dst_row,
                     .range_row = range_row};
    if (adds) {
      const bool in_int8 = reads_int8(node, 1);
      conv.residual = in_int8 ? DType::qai8 : DType::f16;
      conv.residual_row = in_int8 ? row_of(node.inputs[1]) : -1;
    }
    const std::size_t step = program_.steps.size();
    lower_computed(node, types, make_conv2d(spec, conv, algorithm_, selection_), range_row >= 0);
    if (too_large_.contains(node.name)) {
      program_.steps[step].note = concat("reads fp16, since sums of ",
                                         spec.channels * spec.kernel.height * spec.kernel.width,
                                         " int8 products could leave int32");
    }
  }

  void lower_binary(const Node& node, const BinarySpec& spec) {
    const Types types = types_of(node);
    lower_computed(node, types,
                   std::make_unique<Binary>(spec,
                                            BinaryTypes{.src = types.src,
                                                        .dst = types.dst,
                                                        .a_row = src_row(node, types, 0),
                                                        .b_row = src_row(node, types, 1),
                                                        .dst_row = types.dst_row},
                                            selection_));
  }

  void lower_pool(const Node& node, const PoolSpec& spec) {
    if (spec.kind == PoolKind::max) {
      const DType dtype = kept_type(node);
      lower_kept(node,
                 std::make_unique<Pool>(spec, PoolTypes{.src = dtype, .dst = dtype}, selection_));
      return;
    }
    const Types types = types_of(node);
    lower_computed(node, types,
                   std::make_unique<Pool>(spec,
                                          PoolTypes{.src = types.src,
                                                    .dst = types.dst,
                                                    .src_row = src_row(node, types),
                                                    .dst_row = types.dst_row},
                                          selection_));
  }

  void lower_concat(const Node& node) {
    const Types types = types_of(node);
    std::vector<int> rows;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) rows.push_back(src_row(node, types, i));
    lower_computed(node, types,
                   std::make_unique<Concat>(node.name,
                                            ConcatTypes{.src = types.src,
                                                        .dst = types.dst,
                                                        .src_rows = std::move(rows),
                                                        .dst_row = types.dst_row},
                                            selection_));
  }

  void lower_gather(const Node& node, const std::variant<SliceSpec, PadSpec>& spec) {
    const int row = reads_int8(node) ? row_of(node.inputs[0]) : -1;
    lower_kept(node, std::make_unique<Gather>(spec, kept_type(node), row));
  }

  /// Both element types of an operation whose int8 output keeps the row of its input.
  [[nodiscard]] DType kept_type(const Node& node) const {
    return reads_int8(node) ? DType::qai8 : DType::f16;
  }

  /// An operation whose int8 output keeps the row of its input.
  void lower_kept(const Node& node, std::unique_ptr<Op> op) {
    if (!reads_int8(node)) {
      lower_fp16(node, std::move(op));
      return;
    }
    const int output = buffer_of(node.output, DType::qai8);
    add(node.name, std::move(op), {buffer_of(node.inputs[0], DType::qai8)}, output);
    if (uses_[node.output].fp16 == 0 && !is_feature_source(node.output)) return;
    const int fp16 = buffer_of(node.output, DType::f16);
    add(node.output, std::make_unique<Dequantize>(row_of(node.output), selection_), {output}, fp16);
    predict_after(node.output, fp16);
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
        if (row_owner(value) != value) copy_row(value);
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
  std::set<std::string> too_large_;    // convolutions whose int8 sums could leave int32
  std::set<std::string> needed_rows_;  // values whose rows int8 values are held with
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

struct DirectCost {
  std::string_view kernel;
  double mac;
};
constexpr DirectCost kDirectCosts[] = {
#define QPP_DIRECT_COST(kernel, mac) {#kernel, mac},
#define QPP_WINOGRAD4_COST(...)
#include "network/conv_costs.inc"
};

struct Winograd4Cost {
  std::string_view kernel;
  double product;
  double channel;
  double filter;
  double cached_megabytes;
  double megabyte;
};
constexpr Winograd4Cost kWinograd4Costs[] = {
#define QPP_DIRECT_COST(...)
#define QPP_WINOGRAD4_COST(kernel, ...) {#kernel, __VA_ARGS__},
#include "network/conv_costs.inc"
};

template <typename Cost, std::size_t kCount>
const Cost* find_cost(const Cost (&costs)[kCount], std::string_view kernel) {
  const auto* found = std::find_if(std::begin(costs), std::end(costs),
                                   [&](const Cost& cost) { return cost.kernel == kernel; });
  return found == std::end(costs) ? nullptr : found;
}

Algorithm cheapest_algorithm(const Conv2dSpec& spec, const Conv2dTypes& types,
                             const KernelSelection& selection) {
  if (!WinogradConv2d::supports(spec, types.src)) return Algorithm::direct;
  const WinogradMultiplyKernel& multiply = *selection.winograd4(types.dst, types.src).multiply;
  const DirectCost* direct =
      find_cost(kDirectCosts, selection.conv(types.dst, types.src).info.name);
  const Winograd4Cost* winograd = find_cost(kWinograd4Costs, multiply.info.name);
  if (direct == nullptr || winograd == nullptr) return Algorithm::direct;
  const auto channels = static_cast<double>(round_up<std::int64_t>(spec.channels, 8));
  const auto filters = static_cast<double>(round_up<std::int64_t>(spec.filters, 8));
  const double megabytes =
      channels * filters * kWinogradPoints * static_cast<double>(size_of(multiply.weights)) * 1e-6;
  const double tile = channels * filters * winograd->product + channels * winograd->channel +
                      filters * winograd->filter;
  const double pixel = 9 * channels * filters * direct->mac;
  if (megabytes <= winograd->cached_megabytes) {
    constexpr int kPixels = kWinogradTile * kWinogradTile;
    return tile < kPixels * pixel ? Algorithm::winograd : Algorithm::direct;
  }
  // Sizes are not known yet. Layers of so many weights come last, where 224x224 pixels are 7x7.
  constexpr int kTiles = 4;
  constexpr int kPixels = 49;
  const double of_winograd = std::max(kTiles * tile, megabytes * winograd->megabyte);
  return of_winograd < kPixels * pixel ? Algorithm::winograd : Algorithm::direct;
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

Algorithm parse_algorithm(const std::string& name) {
  if (name == "auto") return Algorithm::automatic;
  if (name == "direct") return Algorithm::direct;
  if (name == "winograd") return Algorithm::winograd;
  throw UnsupportedError(
      concat("algorithm: expected \"auto\", \"direct\" or \"winograd\", got \"", name, "\""));
}

ResidualDType parse_residual_dtype(const std::string& name) {
  if (name == "int8") return ResidualDType::int8;
  if (name == "fp16") return ResidualDType::fp16;
  throw UnsupportedError(
      concat("residual_dtype: expected \"int8\" or \"fp16\", got \"", name, "\""));
}

std::unique_ptr<Op> make_conv2d(const Conv2dSpec& spec, const Conv2dTypes& types,
                                Algorithm algorithm, const KernelSelection& selection) {
  if (DepthwiseConv2d::supports(spec)) {
    return std::make_unique<DepthwiseConv2d>(spec, types, selection);
  }
  if (spec.groups > 1) return std::make_unique<GroupedConv2d>(spec, types, selection);
  if (algorithm == Algorithm::automatic) algorithm = cheapest_algorithm(spec, types, selection);
  if (algorithm == Algorithm::winograd && WinogradConv2d::supports(spec, types.src)) {
    return std::make_unique<WinogradConv2d>(spec, types, selection);
  }
  return std::make_unique<Conv2d>(spec, types, selection);
}

Program lower(const Model& model, const ProgramOptions& options, const KernelSelection& selection) {
  check_scheme(model, options.scheme);
  if (options.density) check_density(model, options.scheme, *options.density);
  return Lowering(model, options, selection).lower();
}

}  // namespace qpp
