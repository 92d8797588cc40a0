// SPDX-License-Identifier: Apache-2.0
#include "network/model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_field.h"
#include "base/json_reader.h"
#include "network/int8_plan.h"
#include "network/safetensors.h"
#include "ops/depthwise.h"
#include "tensor/constants.h"

namespace qpp {
namespace {

class Parser {
 public:
  Parser(const ModelFile& file, std::string source, const Limits& limits)
      : file_(file),
        source_(std::move(source)),
        limits_(limits),
        constants_(file.tensors, limits) {}

  Model parse() {
    const std::string where = concat(source_, ": graph");
    const auto is_node = [](const std::string& member) { return member == "nodes"; };
    // Nodes are read one by one, once everything else is known: of many, none is kept as JSON.
    const auto document = parse_json(
        file_.graph_json, where, limits_,
        {.depth = 2,
         .keep = [&](const std::string& member, const auto&) { return !is_node(member); }});
    const Field graph(document, where);
    graph.only({"name", "inputs", "outputs", "nodes", "quantization"});
    QPP_CHECK(graph["nodes"].list().empty(), ModelError, where, ": expected a list of nodes");
    Model model;
    model.limits = limits_;
    model.name = graph["name"].string();
    for (const Field& input : graph["inputs"].list()) model.inputs.push_back(parse_input(input));
    check_limit(limits_, &Limits::inputs, model.inputs.size(), where, ": the number of inputs");
    const auto read = [&](const std::string& member, const nlohmann::json& item) {
      if (!is_node(member)) return false;
      const std::size_t index = model.nodes.size();
      check_limit(limits_, &Limits::nodes, index + 1, where, ": the number of nodes");
      model.nodes.push_back(parse_node(Field(item, concat(where, ".nodes[", index, "]"))));
      return false;
    };
    parse_json(file_.graph_json, where, limits_, {.depth = 2, .keep = read});
    model.outputs = graph["outputs"].strings();
    check_limit(limits_, &Limits::outputs, model.outputs.size(), where, ": the number of outputs");
    QPP_CHECK(!model.inputs.empty() && !model.outputs.empty(), ModelError, where,
              ": expected at least one input and one output");
    for (const std::string& output : model.outputs) require_value(output, where + ".outputs");
    if (graph.has("quantization"))
      model.quantization = parse_quantization(graph["quantization"], file_.format_version,
                                              constants_, order_, plan_int8(model).values);
    return model;
  }

 private:
  void define_value(const std::string& value, const std::string& where) {
    QPP_CHECK(order_.emplace(value, order_.size()).second, ModelError, where, ": the value '",
              value, "' is defined twice");
  }
  void require_value(const std::string& value, const std::string& where) const {
    QPP_CHECK(order_.contains(value), ModelError, where, ": the value '", value,
              "' is not defined before its use");
  }

  Model::Input parse_input(const Field& field) {
    field.only({"name", "shape"});
    Model::Input input;
    input.name = field["name"].string();
    const std::vector<Field> sizes = field["shape"].list(4);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (!sizes[i].is_null()) input.shape[i] = sizes[i].integer(1, limits_.dimension);
    }
    QPP_CHECK(input.shape[1].has_value(), ModelError, field.where(),
              ": the number of channels must be fixed");
    define_value(input.name, field.where());
    return input;
  }

  Node parse_node(const Field& field) {
    field.only({"op", "name", "inputs", "output", "attributes", "tensors", "fp16"});
    Node node;
    node.op = field["op"].string();
    node.name = field["name"].string();
    node.inputs = field["inputs"].strings();
    node.output = field["output"].string();
    node.fp16 = field.has("fp16") && field["fp16"].boolean();
    const std::string where = concat(source_, ": node '", node.name, "' (", node.op, ")");
    for (const std::string& input : node.inputs) require_value(input, where);

    struct Operation {
      std::size_t inputs;  // 0: one or more
      void (Parser::*parse)(const Field&, const std::string&, Node&);
      std::size_t further = 0;  // inputs that may be there
    };
    static const std::map<std::string, Operation> kOps = {
        {"activation", {1, &Parser::parse_activation_node}},
        {"add", {2, &Parser::parse_binary}},
        {"adaptive_avg_pool2d", {1, &Parser::parse_adaptive_pool}},
        {"adaptive_max_pool2d", {1, &Parser::parse_adaptive_pool}},
        {"avg_pool2d", {1, &Parser::parse_pool}},
        {"concat", {0, &Parser::parse_concat}},
        {"conv2d", {1, &Parser::parse_conv2d, 1}},
        {"hardsigmoid", {1, &Parser::parse_function}},
        {"hardswish", {1, &Parser::parse_function}},
        {"prelu", {1, &Parser::parse_prelu}},
        {"sigmoid", {1, &Parser::parse_function}},
        {"silu", {1, &Parser::parse_function}},
        {"argmax", {1, &Parser::parse_channel_function}},
        {"flatten", {1, &Parser::parse_flatten}},
        {"log_softmax", {1, &Parser::parse_channel_function}},
        {"pad", {1, &Parser::parse_pad}},
        {"pixel_unshuffle", {1, &Parser::parse_pixel_shuffle}},
        {"rearrange", {1, &Parser::parse_rearrange}},
        {"slice", {1, &Parser::parse_slice}},
        {"softmax", {1, &Parser::parse_channel_function}},
        {"global_avg_pool", {1, &Parser::parse_adaptive_pool}},
        {"max_pool2d", {1, &Parser::parse_pool}},
        {"mul", {2, &Parser::parse_binary}},
        {"pixel_shuffle", {1, &Parser::parse_pixel_shuffle}},
        {"resize", {1, &Parser::parse_resize}},
        {"sub", {2, &Parser::parse_binary}},
    };
    const auto op = kOps.find(node.op);
    QPP_CHECK(op != kOps.end(), UnsupportedError, where,
              ": this operation is not known to this version of qppengine");
    const auto& [fewest, parse, further] = op->second;
    const std::size_t least = std::max<std::size_t>(fewest, 1);
    const std::size_t most = fewest > 0 ? fewest + further : node.inputs.size();
    QPP_CHECK(node.inputs.size() >= least && node.inputs.size() <= most, ModelError, where,
              ": expected ", least, further > 0 ? concat(" to ", most) : "", " inputs, got ",
              node.inputs.size());
    (this->*parse)(field, where, node);
    define_value(node.output, where);
    return node;
  }

  void parse_conv2d(const Field& field, const std::string& where, Node& node) {
    const Field attributes(field["attributes"]);
    attributes.only({"stride", "padding", "dilation", "groups", "activation", "clamp"});
    field["tensors"].only({"weight", "scale", "bias"});
    const Tensor& weight = constants_.find(field["tensors"]["weight"].string(), where);
    QPP_CHECK(weight.shape.size() == 4, ModelError, where,
              ": expected a weight of 4 dimensions (OIHW), got ", weight.shape.size());
    QPP_CHECK(weight.elements() > 0, ModelError, where, ": expected a weight that is not empty");
    check_limit(limits_, &Limits::window, std::max(weight.shape[2], weight.shape[3]), where,
                ": the kernel size");
    Conv2dSpec spec;
    spec.name = node.name;
    spec.filters = weight.shape[0];
    spec.channels = weight.shape[1];
    spec.kernel = {.height = weight.shape[2], .width = weight.shape[3]};
    if (attributes.has("groups")) {
      spec.groups = attributes["groups"].integer(1, limits_.window);
      QPP_CHECK(spec.filters % spec.groups == 0, ModelError, where, ": expected ", spec.groups,
                " groups to divide the filters, of which there are ", spec.filters);
    }
    spec.stride = parse_size(attributes["stride"], 1);
    spec.padding = parse_padding(attributes["padding"]);
    spec.dilation = parse_size(attributes["dilation"], 1);
    spec.activation = parse_activation(attributes);
    if (node.inputs.size() > 1) {
      QPP_CHECK(spec.groups == 1, UnsupportedError, where,
                ": expected one group beside a second input, which is added, got ", spec.groups);
      QPP_CHECK(spec.activation.nonlinearity == Nonlinearity::clamp, UnsupportedError, where,
                ": expected the activation none, relu or clamp beside a second input");
    }
    constants_.count(weight.elements(), packed_bytes(spec), where);
    spec.weights = Constants::floats(weight, where);
    if (field["tensors"].has("scale")) {
      const Tensor& scale = constants_.find(field["tensors"]["scale"].string(), where);
      QPP_CHECK(scale.shape == std::vector{spec.filters}, ModelError, where,
                ": expected a scale of ", spec.filters, " elements, got ", scale.elements());
      scale_filters(Constants::floats(scale, where), where, spec.weights);
    }
    spec.bias.assign(static_cast<std::size_t>(spec.filters), 0.0F);
    if (field["tensors"].has("bias")) {
      const Tensor& bias = constants_.find(field["tensors"]["bias"].string(), where);
      QPP_CHECK(bias.shape == std::vector{spec.filters}, ModelError, where, ": expected a bias of ",
                spec.filters, " elements, got ", bias.elements());
      spec.bias = Constants::floats(bias, where);
    }
    node.spec = std::move(spec);
  }

  /// Multiplies the weights of each filter by its scale.
  static void scale_filters(const std::vector<float>& scales, const std::string& where,
                            std::vector<float>& weights) {
    const std::size_t size = weights.size() / scales.size();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i] *= scales[i / size];
      QPP_CHECK(std::isfinite(weights[i]), ModelError, where, ": a scaled weight is infinite");
    }
  }

  void parse_activation_node(const Field& field, const std::string& /*where*/, Node& node) {
    field["attributes"].only({"activation", "clamp"});
    field["tensors"].only({});
    node.spec = parse_activation(field["attributes"]);
  }

  void parse_pixel_shuffle(const Field& field, const std::string& /*where*/, Node& node) {
    const bool inverse = node.op == "pixel_unshuffle";
    const char* factor = inverse ? "downscale_factor" : "upscale_factor";
    field["attributes"].only({factor});
    field["tensors"].only({});
    node.spec =
        PixelShuffleSpec{.factor = field["attributes"][factor].integer(1, 64), .inverse = inverse};
  }

  void parse_binary(const Field& field, const std::string& where, Node& node) {
    static const std::map<std::string, BinaryKind> kKinds = {
        {"add", BinaryKind::add}, {"sub", BinaryKind::sub}, {"mul", BinaryKind::mul}};
    field["attributes"].only({"activation", "clamp"});
    field["tensors"].only({});
    BinarySpec spec{.name = node.name,
                    .kind = kKinds.at(node.op),
                    .activation = parse_activation(field["attributes"])};
    QPP_CHECK(spec.activation.nonlinearity == Nonlinearity::clamp, UnsupportedError, where,
              ": expected the activation none, relu or clamp");
    node.spec = std::move(spec);
  }

  void parse_pool(const Field& field, const std::string& where, Node& node) {
    const Field attributes(field["attributes"]);
    field["tensors"].only({});
    PoolSpec spec;
    spec.name = node.name;
    std::set<std::string> known{"kernel", "stride", "padding", "ceil_mode"};
    if (node.op == "avg_pool2d") {
      spec.kind = PoolKind::average;
      known.merge(std::set<std::string>{"count_include_pad", "divisor"});
      spec.count_include_pad = attributes["count_include_pad"].boolean();
      if (attributes.has("divisor"))
        spec.divisor = attributes["divisor"].integer(1, limits_.window);
    } else {
      known.insert("dilation");
      if (attributes.has("dilation")) spec.dilation = parse_size(attributes["dilation"], 1);
    }
    attributes.only(known);
    spec.kernel = parse_size(attributes["kernel"], 1);
    spec.stride = parse_size(attributes["stride"], 1);
    spec.padding = parse_padding(attributes["padding"]);
    spec.ceil_mode = attributes["ceil_mode"].boolean();
    const auto fits = [](std::int64_t before, std::int64_t both, std::int64_t kernel) {
      return 2 * std::max(before, both - before) <= kernel;
    };
    QPP_CHECK(fits(spec.padding.height, spec.padding.rows(), spec.kernel.height) &&
                  fits(spec.padding.width, spec.padding.columns(), spec.kernel.width),
              ModelError, where, ": expected a padding of at most half the kernel");
    node.spec = std::move(spec);
  }

  void parse_adaptive_pool(const Field& field, const std::string& /*where*/, Node& node) {
    const Field attributes(field["attributes"]);
    field["tensors"].only({});
    PoolSpec spec;
    spec.name = node.name;
    if (node.op == "global_avg_pool") {
      attributes.only({});
      spec.size = Size2d{};
    } else {
      attributes.only({"size"});
      spec.size = parse_size(attributes["size"], 1);
    }
    spec.kind = node.op == "adaptive_max_pool2d" ? PoolKind::max : PoolKind::average;
    node.spec = std::move(spec);
  }

  void parse_function(const Field& field, const std::string& /*where*/, Node& node) {
    static const std::map<std::string, Function> kFunctions = {
        {"hardsigmoid", Function::hardsigmoid},
        {"hardswish", Function::hardswish},
        {"sigmoid", Function::sigmoid},
        {"silu", Function::silu}};
    field["attributes"].only({});
    field["tensors"].only({});
    node.spec = FunctionSpec{.name = node.name, .function = kFunctions.at(node.op), .slopes = {}};
  }

  void parse_prelu(const Field& field, const std::string& where, Node& node) {
    field["attributes"].only({});
    field["tensors"].only({"weight"});
    const Tensor& slopes = constants_.find(field["tensors"]["weight"].string(), where);
    QPP_CHECK(slopes.shape.size() == 1 && slopes.shape[0] >= 1, ModelError, where,
              ": expected a weight of 1 dimension");
    constants_.count(slopes.elements(), 0, where);
    node.spec = FunctionSpec{
        .name = node.name, .function = Function::prelu, .slopes = Constants::floats(slopes, where)};
  }

  void parse_concat(const Field& field, const std::string& /*where*/, Node& node) {
    field["attributes"].only({});
    field["tensors"].only({});
    node.spec = ConcatSpec{};
  }

  void parse_resize(const Field& field, const std::string& where, Node& node) {
    static const std::map<std::string, ResizeMode> kModes = {
        {"nearest", ResizeMode::nearest},
        {"nearest-exact", ResizeMode::nearest_exact},
        {"bilinear", ResizeMode::bilinear}};
    const Field attributes(field["attributes"]);
    attributes.only({"mode", "align_corners", "size", "scale", "snap_scale"});
    field["tensors"].only({});
    const std::string name = attributes["mode"].string();
    const auto mode = kModes.find(name);
    QPP_CHECK(mode != kModes.end(), UnsupportedError, where,
              ": expected the mode nearest, nearest-exact or bilinear, got \"", name, "\"");
    ResizeSpec spec{.name = node.name,
                    .mode = mode->second,
                    .align_corners = attributes["align_corners"].boolean(),
                    .size = {}};
    QPP_CHECK(attributes.has("size") != attributes.has("scale"), ModelError, where,
              ": expected either a size or a scale");
    QPP_CHECK(!attributes.has("snap_scale") || attributes.has("scale"), ModelError, where,
              ": snap_scale belongs to a scale");
    QPP_CHECK(!spec.align_corners || spec.mode == ResizeMode::bilinear, ModelError, where,
              ": align_corners belongs to the mode bilinear");
    if (attributes.has("size")) {
      spec.size = parse_size(attributes["size"], 1);
    } else {
      const std::vector<Field> scales = attributes["scale"].list(2);
      spec.scale_height = parse_scale(scales[0]);
      spec.scale_width = parse_scale(scales[1]);
      if (attributes.has("snap_scale")) spec.snap_scale = attributes["snap_scale"].boolean();
    }
    node.spec = std::move(spec);
  }

  static double parse_scale(const Field& field) {
    constexpr double kLargest = 256;
    const double scale = field.number();
    QPP_CHECK(scale >= 1 / kLargest && scale <= kLargest, ModelError, field.where(),
              ": expected a scale from 1/256 to 256, got ", scale);
    return scale;
  }

  void parse_flatten(const Field& field, const std::string& /*where*/, Node& node) {
    field["attributes"].only({});
    field["tensors"].only({});
    node.spec = RearrangeSpec{.name = node.name, .view = {std::nullopt}, .order = {0}};
  }

  void parse_rearrange(const Field& field, const std::string& where, Node& node) {
    constexpr std::size_t kMostDimensions = 6;
    const Field attributes(field["attributes"]);
    attributes.only({"view", "order"});
    field["tensors"].only({});
    RearrangeSpec spec{.name = node.name, .view = {}, .order = {}};
    const std::vector<Field> view = attributes["view"].list();
    const std::size_t rank = view.size();
    QPP_CHECK(rank >= 1 && rank <= kMostDimensions, ModelError, where, ": expected 1 to ",
              kMostDimensions, " dimensions, got ", rank);
    std::set<std::int64_t> places;
    for (const Field& index : attributes["order"].list(rank)) {
      const std::int64_t place = index.integer(0, static_cast<std::int64_t>(rank) - 1);
      spec.order.push_back(static_cast<int>(place));
      QPP_CHECK(places.insert(place).second, ModelError, index.where(), ": the dimension ", place,
                " stands twice");
    }
    const bool open = view.back().is_null();
    for (std::size_t i = 0; i < rank; ++i) {
      QPP_CHECK(view[i].is_null() == (open && i + 2 >= rank && rank > 2), ModelError,
                view[i].where(), ": expected sizes, of which the last two may be null");
      spec.view.emplace_back();
      if (!open || i + 2 < rank) spec.view.back() = view[i].integer(1, limits_.dimension);
    }
    node.spec = std::move(spec);
  }

  void parse_slice(const Field& field, const std::string& /*where*/, Node& node) {
    const Field attributes(field["attributes"]);
    attributes.only({"axis", "start", "stop", "step"});
    field["tensors"].only({});
    SliceSpec spec{.name = node.name,
                   .axis = static_cast<int>(attributes["axis"].integer(1, 3)),
                   .start = attributes["start"].integer(-limits_.dimension, limits_.dimension),
                   .stop = std::nullopt,
                   .step = attributes["step"].integer(1, limits_.dimension)};
    if (!attributes["stop"].is_null())
      spec.stop = attributes["stop"].integer(-limits_.dimension, limits_.dimension);
    node.spec = std::move(spec);
  }

  void parse_pad(const Field& field, const std::string& where, Node& node) {
    static const std::map<std::string, PadMode> kModes = {{"zeros", PadMode::zeros},
                                                          {"reflect", PadMode::reflect},
                                                          {"replicate", PadMode::replicate}};
    const Field attributes(field["attributes"]);
    attributes.only({"padding", "mode"});
    field["tensors"].only({});
    const std::string name = attributes["mode"].string();
    const auto mode = kModes.find(name);
    QPP_CHECK(mode != kModes.end(), UnsupportedError, where,
              ": expected the mode zeros, reflect or replicate, got \"", name, "\"");
    const std::int64_t lowest = mode->second == PadMode::zeros ? -limits_.window : 0;
    std::vector<std::int64_t> sides;
    for (const Field& side : attributes["padding"].list(4))
      sides.push_back(side.integer(lowest, limits_.window));
    node.spec = PadSpec{.name = node.name, .mode = mode->second, .padding = as_padding(sides)};
  }

  void parse_channel_function(const Field& field, const std::string& /*where*/, Node& node) {
    static const std::map<std::string, ChannelFunction> kFunctions = {
        {"softmax", ChannelFunction::softmax},
        {"log_softmax", ChannelFunction::log_softmax},
        {"argmax", ChannelFunction::argmax}};
    field["attributes"].only({});
    field["tensors"].only({});
    node.spec = ChannelFunctionSpec{.name = node.name, .function = kFunctions.at(node.op)};
  }

  static ActivationSpec parse_activation(const Field& attributes) {
    const Field kind = attributes["activation"];
    const std::string name = kind.string();
    QPP_CHECK(attributes.has("clamp") == (name == "clamp"), ModelError, kind.where(),
              ": bounds belong to the activation \"clamp\" and to no other");
    if (name == "none") return {};
    if (name == "relu") return {.lo = 0};
    if (name == "tanh") return {.nonlinearity = Nonlinearity::tanh};
    QPP_CHECK(name == "clamp", UnsupportedError, kind.where(),
              ": expected none, relu, tanh or clamp, got \"", name, "\"");
    const std::vector<Field> bounds = attributes["clamp"].list(2);
    const auto lo = static_cast<float>(bounds[0].number());
    const auto hi = static_cast<float>(bounds[1].number());
    QPP_CHECK(lo <= hi, ModelError, attributes.where(), ": expected clamp bounds in order, got ",
              lo, " and ", hi);
    return {.lo = lo, .hi = hi};
  }

  [[nodiscard]] Size2d parse_size(const Field& field, std::int64_t lowest) const {
    const std::vector<Field> sizes = field.list(2);
    return {.height = sizes[0].integer(lowest, limits_.window),
            .width = sizes[1].integer(lowest, limits_.window)};
  }

  /// Two numbers, of rows and of columns on either side, or four: top, left, bottom, right.
  [[nodiscard]] Padding parse_padding(const Field& field) const {
    std::vector<std::int64_t> sides;
    for (const Field& side : field.list()) sides.push_back(side.integer(0, limits_.window));
    QPP_CHECK(sides.size() == 2 || sides.size() == 4, ModelError, field.where(),
              ": expected 2 or 4 items, got ", sides.size());
    if (sides.size() == 2) return {.height = sides[0], .width = sides[1]};
    return as_padding(sides);
  }

  /// From top, left, bottom and right.
  static Padding as_padding(std::span<const std::int64_t> sides) {
    return {.height = sides[0],
            .width = sides[1],
            .more_below = sides[2] - sides[0],
            .more_right = sides[3] - sides[1]};
  }

  /// About what kernels read of a convolution's weights: filters and channels padded, in fp16.
  [[nodiscard]] static std::int64_t packed_bytes(const Conv2dSpec& spec) {
    constexpr std::int64_t kOfGroup = 1024;  // what there is besides
    const std::int64_t taps = spec.kernel.height * spec.kernel.width;
    if (DepthwiseConv2d::supports(spec)) return round_up<std::int64_t>(spec.filters, 16) * taps * 2;
    const std::int64_t filters = round_up<std::int64_t>(spec.filters / spec.groups, 16);
    const std::int64_t channels = round_up<std::int64_t>(spec.channels, 4);
    return spec.groups * (filters * channels * taps * 2 + kOfGroup);
  }

  const ModelFile& file_;
  std::string source_;
  Limits limits_;
  Constants constants_;
  ValueOrder order_;
};

/// Throws UnsupportedError.
int parse_format_version(const std::string& text, const std::string& source) {
  for (int version = 1; version <= kFormatVersion; ++version) {
    if (text == std::to_string(version)) return version;
  }
  throw UnsupportedError(concat(source, ": expected format version 1 to ", kFormatVersion, ", got ",
                                quote(text), "; export the model again"));
}

}  // namespace

ModelFile read_model_file(std::span<const std::byte> bytes, const std::string& source,
                          const Limits& limits) {
  Safetensors container = parse_safetensors(bytes, source, limits);
  QPP_CHECK(container.metadata["format"] == kFormat, ModelError, source,
            ": expected a model written by qppengine.save, got ",
            "a safetensors file of another kind");
  return {.format_version = parse_format_version(container.metadata["format_version"], source),
          .graph_json = std::move(container.metadata["graph"]),
          .tensors = std::move(container.tensors)};
}

Model parse_model(const ModelFile& file, const std::string& source, const Limits& limits) {
  return Parser(file, source, limits).parse();
}

Model load_model(std::span<const std::byte> bytes, const std::string& source,
                 const Limits& limits) {
  return parse_model(read_model_file(bytes, source, limits), source, limits);
}

Model load_model(const std::string& path, const Limits& limits) {
  return load_model(read_file(path), path, limits);
}

}  // namespace qpp
