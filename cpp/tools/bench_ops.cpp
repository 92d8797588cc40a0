// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <nlohmann/json.hpp>

#include "network/session.h"
#include "ops/concat.h"
#include "ops/conv_algorithm.h"
#include "ops/elementwise.h"
#include "ops/pixel_shuffle.h"
#include "ops/pool.h"
#include "ops/quantize.h"
#include "ops/resize.h"
#include "tools/benches.h"
#include "tools/op_bench.h"

namespace qpp::bench {

using nlohmann::ordered_json;

namespace {

Shape image(const std::vector<std::int64_t>& sizes) {
  return {.batch = 1, .height = sizes[0], .width = sizes[1], .channels = sizes[2]};
}

DType parse_dtype(const std::string& option, const std::string& name) {
  if (name == "fp16") return DType::f16;
  if (name == "int8" || name == "ds") return DType::qai8;
  throw UsageError(option + ": expected fp16 or int8, got " + name);
}

/// Row of an int8 tensor: 0 of sources, 1 of results.
int row_of(DType dtype, int row) { return dtype == DType::qai8 ? row : -1; }

}  // namespace

/// Convolutions of all kinds.
void bench_conv(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--filters", "--kernel", "--stride", "--algorithm", "--out",
                "--residual", "--range", "--density", "--iters", "--threads", "--json"});
  const bool linear = options.positional[0] == "linear";
  const Algorithm algorithm = parse_algorithm(options.text("--algorithm", "auto"));
  const DType src = parse_dtype("--dtype", options.text("--dtype"));
  const DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const Shape shape = image(options.sizes("--size", 3));
  const std::int64_t kernel = options.integer("--kernel", linear ? 1 : 3);
  const std::int64_t stride = options.integer("--stride", 1);

  Random random;
  Conv2dSpec spec;
  spec.name = "conv";
  spec.channels = shape.channels;
  if (options.positional[0] == "depthwise") {
    spec.filters = spec.groups = shape.channels;
    spec.channels = 1;
  } else {
    spec.filters = options.integer("--filters");
  }
  spec.kernel = {.height = kernel, .width = kernel};
  spec.stride = {.height = stride, .width = stride};
  spec.padding = {.height = kernel / 2, .width = kernel / 2};
  spec.activation.lo = 0;  // ReLU
  spec.weights.resize(static_cast<std::size_t>(spec.filters * spec.channels * kernel * kernel));
  for (float& weight : spec.weights) weight = random.next() * 0.05F;
  spec.bias.resize(static_cast<std::size_t>(spec.filters));
  for (float& bias : spec.bias) bias = random.next();

  const bool sparse_src = options.text("--dtype") == "ds";
  const bool sparse_dst = options.text("--out", options.text("--dtype")) == "ds";
  if ((sparse_src || sparse_dst) && options.positional[0] != "conv") {
    throw UsageError("--dtype ds: only for conv");
  }
  const double density = options.number("--density", 0.01);
  if (density <= 0 || density > kMaxDensity) {
    throw UsageError("--density: expected a number above 0 and up to 0.1");
  }
  const bool range = options.has("--range");
  if (range && dst != DType::f16) throw UsageError("--range: only where --out is fp16");
  Conv2dTypes types{.src = src,
                    .dst = dst,
                    .sparse_src = sparse_src,
                    .sparse_dst = sparse_dst,
                    .src_row = 0,
                    .dst_row = 1,
                    .range_row = range ? 1 : -1};
  if (options.has("--residual")) {
    if (options.positional[0] == "depthwise") throw UsageError("--residual: not for depthwise");
    types.residual = parse_dtype("--residual", options.text("--residual"));
    types.residual_row = 0;
  }
  constexpr std::size_t kMoreThanCaches = 8 << 20;
  const std::size_t weight_bytes = spec.weights.size() * size_of(src);
  const std::size_t copies = linear ? kMoreThanCaches / weight_bytes + 1 : 1;
  std::vector<std::unique_ptr<Op>> convs;
  std::vector<Op*> pointers;
  for (std::size_t i = 0; i < copies; ++i) {
    convs.push_back(make_conv2d(spec, types, algorithm, KernelSelection::from_environment()));
    pointers.push_back(convs.back().get());
  }
  const Shape output = pointers[0]->prepare(std::span(&shape, 1), 1);
  report["macs"] = output.pixels() * spec.filters * spec.channels * kernel * kernel;
  report["bytes"] = weight_bytes;
  OpBench bench({shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.table().qparams[1] = choose_qparams(0, 1, 8);  // after the ReLU
  if (sparse_src) bench.add_outliers(density);
  if (types.residual) bench.add_residual(output, *types.residual);
  if (sparse_dst) {
    bench.make_output_sparse();
    Conv2dTypes fp16 = types;
    fp16.dst = DType::f16;
    fp16.sparse_dst = false;
    const auto conv =
        make_conv2d(spec, fp16, Algorithm::direct, KernelSelection::from_environment());
    bench.table().qparams[1] = choose_qparams(0, bench.largest_but(density, *conv), 8);
  }
  bench.run(pointers, options, report, OpBench::Order::in_turn);
}

void bench_binary(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--out", "--iters", "--threads", "--json"});
  const DType src = parse_dtype("--dtype", options.text("--dtype"));
  const DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const Shape shape = image(options.sizes("--size", 3));
  BinarySpec spec;
  spec.name = options.positional[0];
  spec.kind = spec.name == "mul" ? BinaryKind::mul : BinaryKind::add;
  spec.activation.lo = 0;  // ReLU
  Binary op(spec,
            {.src = src,
             .dst = dst,
             .a_row = row_of(src, 0),
             .b_row = row_of(src, 0),
             .dst_row = row_of(dst, 1)},
            KernelSelection::from_environment());
  report["elements"] = shape.pixels() * shape.channels;
  OpBench bench({shape, shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

/// Counts output elements, those of a global pool excepted: it reads far more than it writes.
void bench_pool(const Options& options, ordered_json& report) {
  options.only(
      {"--dtype", "--size", "--out", "--kernel", "--stride", "--iters", "--threads", "--json"});
  const DType src = parse_dtype("--dtype", options.text("--dtype"));
  const DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const Shape shape = image(options.sizes("--size", 3));
  const std::int64_t kernel = options.integer("--kernel", 3);
  const std::int64_t stride = options.integer("--stride", 2);
  PoolSpec spec;
  spec.name = options.positional[0];
  spec.kind = spec.name == "max_pool" ? PoolKind::max : PoolKind::average;
  const bool global = spec.name == "global_avg_pool";
  if (global) {
    spec.size = Size2d{};
  } else {
    spec.kernel = {.height = kernel, .width = kernel};
    spec.stride = {.height = stride, .width = stride};
    spec.padding = {.height = kernel / 2, .width = kernel / 2};
  }
  Pool op(spec, {.src = src, .dst = dst, .src_row = row_of(src, 0), .dst_row = row_of(dst, 1)},
          KernelSelection::from_environment());
  const Shape counted = global ? shape : op.prepare(std::span(&shape, 1), 1);
  report["elements"] = counted.pixels() * counted.channels;
  OpBench bench({shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

void bench_concat(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--channels", "--out", "--iters", "--threads", "--json"});
  const DType src = parse_dtype("--dtype", options.text("--dtype"));
  const DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const std::vector<std::int64_t> size = options.sizes("--size", 2);
  std::vector<Shape> shapes;
  for (const std::int64_t channels : options.list("--channels", '+'))
    shapes.push_back(image({size[0], size[1], channels}));
  Concat op("concat",
            {.src = src,
             .dst = dst,
             .src_rows = std::vector<int>(shapes.size(), 0),
             .dst_row = row_of(dst, 1)},
            KernelSelection::from_environment());
  const Shape output = op.prepare(shapes, 1);
  report["elements"] = output.pixels() * output.channels;
  OpBench bench(shapes, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

/// Enlarging, by interpolation or by arranging channels.
void bench_enlargement(const Options& options, ordered_json& report) {
  const bool shuffle = options.positional[0] == "pixel_shuffle";
  std::vector<std::string> known = {"--dtype", "--size",    "--scale",
                                    "--iters", "--threads", "--json"};
  if (shuffle) known.emplace_back("--out");
  options.only(known);
  const DType dtype =
      parse_dtype("--dtype", shuffle ? options.text("--dtype", "fp16") : options.text("--dtype"));
  const bool exports = shuffle && options.text("--out", "") == "fp32";
  const DType dst =
      exports ? DType::f32
              : parse_dtype("--out", options.text("--out", options.text("--dtype", "fp16")));
  if (shuffle && dst != dtype && (!exports || dtype != DType::f16))
    throw UsageError("--out: expected the type of --dtype, or fp32 of fp16");
  const Shape shape = image(options.sizes("--size", 3));
  const std::int64_t scale = options.integer("--scale", 2);
  std::unique_ptr<Op> op;
  if (shuffle) {
    op = std::make_unique<PixelShuffle>("pixel_shuffle", scale, /*inverse=*/false, dtype);
  } else {
    ResizeSpec spec;
    spec.mode = ResizeMode::bilinear;
    spec.scale_height = spec.scale_width = static_cast<double>(scale);
    op = std::make_unique<Resize>(spec, dtype, KernelSelection::from_environment());
  }
  const Shape output = op->prepare(std::span(&shape, 1), 1);
  report["elements"] = output.pixels() * output.channels;
  OpBench bench({shape}, dtype, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({op.get()}, options, report);
}

/// The benches of a statistic or a pass over one tensor.
void bench_tensor(const Options& options, ordered_json& report) {
  options.only({"--size", "--alpha", "--iters", "--threads", "--json"});
  const std::string command = options.positional[0];
  const double alpha = options.number("--alpha", 0.9997);
  if (alpha <= 0.5 || alpha > 1)
    throw UsageError("--alpha: expected a number above 0.5 and up to 1");
  const Shape shape = image(options.sizes("--size", 3));
  const KernelSelection selection = KernelSelection::from_environment();
  constexpr std::size_t kTargets = 20;  // rows that `predict` writes, as many as ResNet18 needs
  report["elements"] = shape.pixels() * shape.channels;

  std::vector<std::unique_ptr<Op>> ops;
  if (command == "quantize") {
    ops.push_back(std::make_unique<Quantize>(0, selection));
  } else if (command == "minmax") {
    ops.push_back(std::make_unique<ChooseQParams>(
        ChooseQParams::Spec{.value = "x", .targets = {{.row = 0}}}, selection));
  } else if (command == "quantile") {
    // As in a network: the producer's epilogue has measured the range.
    ops.push_back(std::make_unique<ChooseQParams>(
        ChooseQParams::Spec{
            .value = "x", .targets = {{.row = 0, .alpha = alpha}}, .range_measured = true},
        selection));
  } else {
    MeasureFeatures::Spec features{.value = "x",
                                   .targets = {{{.kind = FeatureKind::quantile, .alpha = 0.997}},
                                               {{.kind = FeatureKind::quantile, .alpha = 0.999}},
                                               {{.kind = FeatureKind::quantile, .alpha = 0.9998}},
                                               {{.kind = FeatureKind::mean}},
                                               {{.kind = FeatureKind::max}}}};
    const std::size_t count = features.targets.size();
    for (std::size_t i = 0; i < count; ++i) features.targets[i].slot = i;
    PredictQParams::Spec predict{.targets = std::vector<PredictQParams::Target>(kTargets),
                                 .weight = std::vector<float>(2 * kTargets * count),
                                 .bias = std::vector<float>(2 * kTargets)};
    for (std::size_t i = 0; i < kTargets; ++i) predict.targets[i].row = static_cast<int>(i);
    ops.push_back(std::make_unique<MeasureFeatures>(std::move(features), selection));
    ops.push_back(std::make_unique<PredictQParams>(std::move(predict)));
  }
  OpBench bench({shape}, DType::f16, command == "quantize" ? DType::qai8 : DType::f16,
                static_cast<int>(options.integer("--threads", 1)), kTargets);
  bench.table().ranges[0] = {.lo = -1, .hi = 1};
  std::vector<Op*> pointers;
  for (const auto& op : ops) pointers.push_back(op.get());
  bench.run(pointers, options, report);
}

}  // namespace qpp::bench
