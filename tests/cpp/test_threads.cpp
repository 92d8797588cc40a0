// SPDX-License-Identifier: Apache-2.0
//
// Every operation stores the same bytes, and the same rows of the QP table, whatever the number of
// threads. Under ThreadSanitizer this also shows that threads touch disjoint memory.

#include <doctest/doctest.h>

#include <functional>
#include <memory>

#include "network/qp_table.h"
#include "ops/channel_reduction.h"
#include "ops/concat.h"
#include "ops/depthwise.h"
#include "ops/elementwise.h"
#include "ops/features.h"
#include "ops/layout.h"
#include "ops/pixel_shuffle.h"
#include "ops/pool.h"
#include "ops/quantize.h"
#include "ops/rearrange.h"
#include "ops/resize.h"
#include "ops/slice_pad.h"
#include "ops/statistics.h"
#include "ops/winograd.h"
#include "support.h"

namespace qpp {
namespace {

constexpr DType kHalf = DType::f16;
constexpr DType kByte = DType::qai8;
constexpr int kMaxThreads = 4;

const KernelSelection& selection() {
  static const KernelSelection kSelection = KernelSelection::from_environment();
  return kSelection;
}

int row_of(DType dtype, int row) { return dtype == kByte ? row : -1; }

struct Case {
  const char* name;
  DType src;
  DType dst;
  std::vector<Shape> inputs;
  std::function<std::unique_ptr<Op>(const Case&)> make;
};

/// A convolution that keeps the size, or halves it with stride 2.
template <typename Conv, int kFilters, int kKernel, int kStride = 1, int kGroups = 1>
std::unique_ptr<Op> make_conv(const Case& test) {
  test::Random random(3);
  Conv2dSpec spec;
  spec.name = "conv";
  spec.filters = kFilters;
  spec.channels = test.inputs[0].channels / kGroups;
  spec.groups = kGroups;
  spec.kernel = {kKernel, kKernel};
  spec.stride = {kStride, kStride};
  spec.padding.height = spec.padding.width = kKernel / 2;
  spec.weights = random.list(kFilters * spec.channels * kKernel * kKernel, 0.3F);
  spec.bias = random.list(kFilters);
  const bool measures = test.dst == kHalf && kGroups == 1;  // otherwise that is another operation's
  Conv2dTypes types{.src = test.src,
                    .dst = test.dst,
                    .src_row = row_of(test.src, 0),
                    .dst_row = row_of(test.dst, 1),
                    .range_row = measures ? 1 : -1};
  if (test.inputs.size() > 1) {
    types.residual = test.src;
    types.residual_row = row_of(test.src, 0);
  }
  return std::make_unique<Conv>(spec, types, selection());
}
constexpr auto* kDense = make_conv<Conv2d, 12, 3>;
constexpr auto* kPointwise = make_conv<Conv2d, 20, 1, 2>;
constexpr auto* kWide = make_conv<Conv2d, 8, 5, 2>;
constexpr auto* kWinograd = make_conv<WinogradConv2d, 24, 3>;
constexpr auto* kDepthwise = make_conv<DepthwiseConv2d, 16, 3, 1, 16>;
constexpr auto* kGrouped = make_conv<GroupedConv2d, 16, 3, 1, 2>;

template <BinaryKind kKind>
std::unique_ptr<Op> make_binary(const Case& test) {
  return std::make_unique<Binary>(BinarySpec{.name = "binary", .kind = kKind, .activation = {}},
                                  BinaryTypes{.src = test.src,
                                              .dst = test.dst,
                                              .a_row = row_of(test.src, 0),
                                              .b_row = row_of(test.src, 0),
                                              .dst_row = row_of(test.dst, 1)},
                                  selection());
}

template <PoolKind kKind, bool kGlobal = false>
std::unique_ptr<Op> make_pool(const Case& test) {
  PoolSpec spec;
  spec.name = "pool";
  spec.kind = kKind;
  spec.kernel = {3, 3};
  spec.stride = {2, 2};
  spec.padding.height = spec.padding.width = 1;
  if (kGlobal) spec.size = Size2d{1, 1};
  return std::make_unique<Pool>(spec,
                                PoolTypes{.src = test.src,
                                          .dst = test.dst,
                                          .src_row = row_of(test.src, 0),
                                          .dst_row = row_of(test.dst, 1)},
                                selection());
}

template <ResizeMode kMode>
std::unique_ptr<Op> make_resize(const Case& test) {
  ResizeSpec spec;
  spec.name = "resize";
  spec.mode = kMode;
  spec.scale_height = spec.scale_width = 2;
  return std::make_unique<Resize>(spec, test.dst, selection());
}

std::unique_ptr<Op> make_concat(const Case& test) {
  return std::make_unique<Concat>(
      "concat",
      ConcatTypes{.src = test.src,
                  .dst = test.dst,
                  .src_rows = {row_of(test.src, 0), row_of(test.src, 1)},
                  .dst_row = row_of(test.dst, 1)},
      selection());
}

std::unique_ptr<Op> make_choice(double alpha) {
  return std::make_unique<ChooseQParams>(
      ChooseQParams::Spec{.value = "x", .targets = {{.row = 0, .alpha = alpha}}}, selection());
}

const std::vector<Case> kCases = {
    {"conv of channels", kByte, kByte, {{2, 7, 19, 24}}, kDense},
    {"conv of channels", kByte, kHalf, {{2, 7, 19, 24}}, kDense},
    {"conv of channels", kHalf, kHalf, {{2, 7, 19, 24}}, kDense},
    {"conv of rows", kByte, kByte, {{3, 5, 6, 18}}, kDense},
    {"conv of rows", kHalf, kByte, {{3, 5, 6, 18}}, kDense},
    {"conv of patches", kByte, kByte, {{3, 9, 7, 1}}, kWide},
    {"conv of patches", kHalf, kHalf, {{2, 9, 30, 3}}, kWide},
    {"conv of pixels", kByte, kByte, {{1, 9, 11, 40}}, kPointwise},
    {"conv of one pixel", kByte, kByte, {{1, 1, 1, 40}}, kPointwise},
    {"Winograd", kByte, kByte, {{2, 9, 14, 18}}, kWinograd},
    {"Winograd", kHalf, kHalf, {{1, 13, 30, 24}}, kWinograd},
    {"Winograd of one block", kByte, kHalf, {{1, 4, 4, 24}}, kWinograd},
    {"conv with residual", kByte, kByte, {{2, 7, 19, 24}, {2, 7, 19, 12}}, kDense},
    {"conv with residual", kByte, kHalf, {{2, 7, 19, 24}, {2, 7, 19, 12}}, kDense},
    {"conv with residual", kHalf, kHalf, {{2, 7, 19, 24}, {2, 7, 19, 12}}, kDense},
    {"Winograd with residual", kByte, kByte, {{2, 9, 14, 18}, {2, 9, 14, 24}}, kWinograd},
    {"Winograd with residual", kHalf, kHalf, {{1, 13, 30, 24}, {1, 13, 30, 24}}, kWinograd},
    {"depthwise", kByte, kByte, {{2, 9, 7, 16}}, kDepthwise},
    {"depthwise", kHalf, kHalf, {{1, 5, 12, 16}}, kDepthwise},
    {"grouped", kByte, kByte, {{2, 6, 7, 10}}, kGrouped},
    {"add", kByte, kByte, {{1, 5, 9, 24}, {1, 5, 9, 24}}, make_binary<BinaryKind::add>},
    {"add", kByte, kHalf, {{1, 5, 9, 24}, {1, 5, 9, 24}}, make_binary<BinaryKind::add>},
    {"mul by channel", kHalf, kHalf, {{2, 3, 5, 24}, {2, 1, 1, 24}}, make_binary<BinaryKind::mul>},
    {"max pool", kByte, kByte, {{2, 7, 9, 24}}, make_pool<PoolKind::max>},
    {"average pool", kByte, kByte, {{2, 7, 9, 24}}, make_pool<PoolKind::average>},
    {"average pool", kHalf, kHalf, {{2, 7, 9, 24}}, make_pool<PoolKind::average>},
    {"global average", kByte, kHalf, {{3, 7, 7, 40}}, make_pool<PoolKind::average, true>},
    {"nearest", kByte, kByte, {{2, 3, 5, 24}}, make_resize<ResizeMode::nearest>},
    {"bilinear", kByte, kByte, {{2, 3, 5, 24}}, make_resize<ResizeMode::bilinear>},
    {"bilinear", kHalf, kHalf, {{2, 3, 5, 24}}, make_resize<ResizeMode::bilinear>},
    {"concat", kByte, kByte, {{1, 9, 9, 18}, {1, 9, 9, 7}}, make_concat},
    {"concat", kHalf, kHalf, {{1, 9, 9, 18}, {1, 9, 9, 7}}, make_concat},
    {"pixel shuffle",
     kHalf,
     kHalf,
     {{2, 5, 4, 9}},
     [](const Case& /*test*/) {
       return std::make_unique<PixelShuffle>("shuffle", 3, /*inverse=*/false, kHalf);
     }},
    {"flatten",
     kHalf,
     kHalf,
     {{2, 5, 4, 9}},
     [](const Case& /*test*/) {
       return std::make_unique<Rearrange>(
           RearrangeSpec{.name = "flatten", .view = {std::nullopt}, .order = {0}}, kHalf);
     }},
    {"pad",
     kByte,
     kByte,
     {{2, 5, 4, 9}},
     [](const Case& /*test*/) {
       return std::make_unique<SlicePad>(
           PadSpec{.name = "pad", .mode = PadMode::reflect, .padding = {.height = 2, .width = 1}},
           kByte, 0);
     }},
    {"softmax",
     kHalf,
     kHalf,
     {{2, 5, 4, 9}},
     [](const Case& /*test*/) {
       return std::make_unique<ChannelReduction>(
           ChannelReductionSpec{.name = "softmax", .kind = ChannelReductionKind::softmax});
     }},
    {"tanh",
     kHalf,
     kHalf,
     {{1, 5, 4, 9}},
     [](const Case& /*test*/) {
       UnarySpec spec;
       spec.function = UnaryActivation::tanh;
       return std::make_unique<Activation>(spec, selection());
     }},
    {"quantize",
     kHalf,
     kByte,
     {{1, 9, 11, 24}},
     [](const Case& /*test*/) { return std::make_unique<Quantize>(0, selection()); }},
    {"dequantize",
     kByte,
     kHalf,
     {{1, 9, 11, 24}},
     [](const Case& /*test*/) { return std::make_unique<Dequantize>(0, selection()); }},
    {"range", kHalf, kHalf, {{2, 9, 11, 20}}, [](const Case& /*test*/) { return make_choice(1); }},
    {"quantile",
     kHalf,
     kHalf,
     {{2, 9, 11, 20}},
     [](const Case& /*test*/) { return make_choice(0.99); }},
    {"features",
     kHalf,
     kHalf,
     {{2, 9, 11, 20}},
     [](const Case& /*test*/) {
       return std::make_unique<MeasureFeatures>(
           MeasureFeatures::Spec{
               .value = "x",
               .targets = {{{.kind = FeatureKind::quantile, .alpha = 0.9}, 0},
                           {{.kind = FeatureKind::mean}, 1},
                           {{.kind = FeatureKind::std, .transform = Transform::log}, 2},
                           {{.kind = FeatureKind::absmax}, 3}}},
           selection());
     }},
};

struct Source {
  AlignedVector<std::byte> bytes;
  TensorView view;
};

Source make_source(const Shape& shape, DType dtype) {
  test::Random random(static_cast<std::uint64_t>(shape.elements()));
  Source source;
  source.bytes.resize(static_cast<std::size_t>(shape.elements()) * size_of(dtype));
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const float value = i % shape.stride() < shape.channels ? random.next() : 0;
    if (dtype == kHalf) {
      reinterpret_cast<half*>(source.bytes.data())[i] = to_half(value);
    } else {
      reinterpret_cast<std::int8_t*>(source.bytes.data())[i] =
          static_cast<std::int8_t>(value * 127);
    }
  }
  source.view = {.data = source.bytes.data(), .dtype = dtype, .shape = shape};
  return source;
}

struct Result {
  std::vector<std::byte> bytes;
  std::vector<float> table;  // bounds and features
  bool operator==(const Result&) const = default;
};

Result run(const Case& test, const std::vector<TensorView>& inputs, int threads) {
  const std::unique_ptr<Op> op = test.make(test);
  const Shape output = op->prepare(test.inputs, threads);
  QpTable table(2, 4);
  table.qparams[0] = choose_qparams(-1, 1.5F, 8);
  table.qparams[1] = choose_qparams(-3, 3, 8);
  ThreadPool pool(threads);
  RunState state = table.state(pool);
  constexpr std::byte kGarbage{0xff};  // NaN, as a half
  AlignedVector<std::byte> scratch(op->scratch_bytes(), kGarbage);
  Result result;
  result.bytes.assign(static_cast<std::size_t>(output.elements()) * size_of(test.dst), kGarbage);
  op->run({.inputs = inputs,
           .output = {.data = result.bytes.data(), .dtype = test.dst, .shape = output},
           .scratch = scratch.data()},
          state);
  for (const Range& range : table.ranges)
    result.table.insert(result.table.end(), {range.lo, range.hi});
  for (const QParams& row : table.qparams) {
    result.table.insert(result.table.end(), {row.scale, static_cast<float>(row.zero_point)});
  }
  result.table.insert(result.table.end(), table.features.begin(), table.features.end());
  return result;
}

TEST_CASE("operations store the same bytes for any number of threads") {
  for (const Case& test : kCases) {
    CAPTURE(test.name);
    CAPTURE(test.src);
    CAPTURE(test.dst);
    std::vector<Source> sources;
    std::vector<TensorView> inputs;
    for (const Shape& shape : test.inputs) {
      sources.push_back(make_source(shape, test.src));
      inputs.push_back(sources.back().view);
    }
    const Result expected = run(test, inputs, 1);
    for (int threads = 2; threads <= kMaxThreads; ++threads) {
      CAPTURE(threads);
      CHECK(run(test, inputs, threads) == expected);
    }
  }
}

TEST_CASE("images come in and go out the same for any number of threads") {
  const Shape shape{.batch = 2, .height = 5, .width = 7, .channels = 3};
  const std::vector<float> image = test::Random(5).list(shape.pixels() * shape.channels);
  for (int threads = 1; threads <= kMaxThreads; ++threads) {
    ThreadPool pool(threads);
    std::vector<half> values(static_cast<std::size_t>(shape.elements()));
    const TensorView view{.data = values.data(), .dtype = kHalf, .shape = shape};
    CHECK(import_nchw(image.data(), view, pool));
    std::vector<float> back(image.size());
    export_nchw(view, back.data(), pool);
    for (std::size_t i = 0; i < image.size(); ++i) CHECK(back[i] == to_float(to_half(image[i])));
  }
}

}  // namespace
}  // namespace qpp
