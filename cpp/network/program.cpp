// SPDX-License-Identifier: Apache-2.0
#include "network/program.h"

#include <map>
#include <set>
#include <utility>

#include "network/int8_plan.h"
#include "network/qparams_source.h"
#include "ops/quantize.h"
#include "ops/sparsify.h"

namespace qpp {
namespace {

class Lowering {
 public:
  Lowering(const Model& model, const ProgramOptions& options, const KernelSelection& selection)
      : model_(model),
        source_(options.source),
        algorithm_(options.algorithm),
        dense_sparse_(options.dense_sparse),
        selection_(selection),
        int8_(source_ != nullptr && source_->quantizes()),
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
    if (!int8_ || (dense_sparse_ && (input > 0 || !node.operation.quantizes_fp16))) return false;
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

  [[nodiscard]] ValueInfo info_of(const std::string& value) const {
    return {.name = value,
            .row = group_of(value) == value ? row_of(value) : -1,
            .row_is_read = needed_rows_.contains(value)};
  }

  /// Whether the source of the QP table has steps that read the value in fp16.
  [[nodiscard]] bool source_reads(const std::string& value) const {
    return source_ != nullptr && source_->reads(info_of(value));
  }

  int buffer_of(const std::string& value, DType dtype) {
    const auto [found, inserted] =
        buffers_.emplace(std::pair{value, dtype}, static_cast<int>(program_.buffers.size()));
    if (inserted) {
      const bool quantized = dtype == DType::qai8;
      program_.buffers.push_back(
          {value, dtype, quantized ? row_of(value) : -1, quantized && dense_sparse_});
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
    } else if (uses_[node.output].fp16 > 0 || source_reads(node.output)) {
      const int fp16 = buffer_of(node.output, DType::f16);
      add(node.output, std::make_unique<Dequantize>(types.output.row, selection_), {output}, fp16);
      add_source_steps(node.output, fp16, /*range_measured=*/false);
    }
  }

  [[nodiscard]] OpTypes types_of(const Node& node) {
    OpTypes types;
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      types.inputs.push_back(operand(node.inputs[i], reads_int8(node, i)));
    types.output = operand(node.output, stores_int8(node));
    if (node.operation.measures_range && source_ != nullptr &&
        source_->reads_range(info_of(node.output)))
      types.range_row = row_of(node.output);
    return types;
  }

  [[nodiscard]] OperandType operand(const std::string& value, bool int8) const {
    if (!int8) return {};
    return {.dtype = DType::qai8, .row = row_of(value), .sparse = dense_sparse_};
  }

  /// Whether a node stores int8 itself. Its output is otherwise fp16, and quantized from that.
  [[nodiscard]] bool stores_int8(const Node& node) {
    if (node.int8.role == Int8Role::shares_qparams) return reads_int8(node);
    if (!reads_int8(node) && !node.operation.quantizes_fp16) return false;
    // The bounds must be known before the first store, so cannot depend on the value itself.
    const Uses uses = uses_[node.output];
    return uses.int8 > 0 && uses.fp16 == 0 && !source_reads(node.output);
  }

  /// Everything that follows an fp16 value: who writes rows because of it, and its int8 copy.
  void finish_fp16(const std::string& value, bool range_measured) {
    const int fp16 = buffer_of(value, DType::f16);
    add_source_steps(value, fp16, range_measured);
    if (uses_[value].int8 > 0) {
      std::unique_ptr<Op> quantize;
      if (dense_sparse_) {
        if (group_of(value) != value) copy_row(value);
        quantize = std::make_unique<Sparsify>(row_of(value), selection_);
      } else {
        quantize = std::make_unique<Quantize>(row_of(value), selection_);
      }
      add(value, std::move(quantize), {fp16}, buffer_of(value, DType::qai8));
    }
  }

  void add_source_steps(const std::string& value, int fp16, bool range_measured) {
    if (!source_reads(value)) return;
    for (auto& [op, reads_value] :
         source_->steps_after(info_of(value), range_measured, selection_)) {
      std::vector<int> inputs;
      if (reads_value) inputs.push_back(fp16);
      add(value, std::move(op), std::move(inputs), -1);
    }
  }

  const Model& model_;
  const QParamsSource* source_;  // null: nothing is quantized
  Algorithm algorithm_;
  bool dense_sparse_;
  const KernelSelection& selection_;
  bool int8_;
  Int8Plan plan_;
  std::map<std::string, Uses> uses_;
  std::set<std::string> without_int8_;  // nodes with an obstacle to the int8 that the plan has
  std::set<std::string> needed_rows_;   // values whose rows int8 values are held with
  std::map<std::pair<std::string, DType>, int> buffers_;
  std::map<std::string, int> copied_rows_;  // of values that have the row of another
  std::size_t packed_bytes_ = 0;
  Program program_;
};

}  // namespace

Program lower(const Model& model, const ProgramOptions& options, const KernelSelection& selection) {
  return Lowering(model, options, selection).lower();
}

}  // namespace qpp
