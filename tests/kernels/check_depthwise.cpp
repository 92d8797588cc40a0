// SPDX-License-Identifier: Apache-2.0
//
// Depthwise convolutions: int8 exactly, fp16 within its rounding.

#include <cmath>
#include <type_traits>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Case {
  std::int64_t channels;
  std::int64_t pixels;
  std::int64_t height;  // of the kernel
  std::int64_t width;
  std::int64_t stride;
  std::int64_t dilation;
  std::int64_t left;   // padding
  std::int64_t right;  // the same; negative: pixels in no window
};

const std::vector<Case> kCases = {
    {8, 1, 3, 3, 1, 1, 0, 0},  {8, 1, 3, 3, 2, 1, 1, 1},   {24, 5, 3, 3, 1, 1, 1, 1},
    {40, 4, 3, 3, 2, 1, 1, 0}, {64, 9, 3, 3, 1, 1, 2, 2},  {8, 14, 3, 3, 1, 1, 1, 1},
    {16, 3, 3, 3, 1, 1, 1, 1}, {16, 6, 3, 3, 2, 1, -1, 1}, {8, 15, 3, 3, 2, 1, 1, -1},
    {8, 13, 5, 5, 1, 1, 2, 2}, {24, 7, 5, 5, 2, 1, 2, 1},  {8, 2, 5, 5, 1, 1, 2, 2},
    {16, 4, 5, 5, 1, 1, 4, 3}, {8, 9, 5, 5, 3, 1, 2, 2},   {8, 11, 7, 7, 1, 1, 3, 3},
    {16, 8, 3, 3, 1, 2, 2, 2}, {8, 5, 1, 1, 1, 1, 0, 0},   {8, 6, 2, 3, 2, 1, 1, 1},
    {8, 7, 5, 3, 1, 1, 1, 1},  {8, 6, 1, 15, 1, 1, 7, 7},  {8, 5, 9, 1, 1, 1, 0, 0},
    {8, 4, 3, 3, 1, 1, 4, 1},
};

/// The worst case: sources of one sign, which are large, and weights of the other.
constexpr float kWorstHalf = 100;

template <typename Src, typename Dst>
void check_case(const DepthwiseKernel& kernel, Trial& trial, const Case& test, bool extreme,
                Nonlinearity nonlinearity) {
  trial.begin(std::to_string(test.channels) + " channels, " + std::to_string(test.pixels) +
              " pixels, " + std::to_string(test.height) + "x" + std::to_string(test.width) +
              ", stride " + std::to_string(test.stride) + ", dilation " +
              std::to_string(test.dilation) + ", padding " + std::to_string(test.left) + " and " +
              std::to_string(test.right));
  Random& random = trial.random;
  const std::int64_t columns = (test.pixels - 1) * test.stride + (test.width - 1) * test.dilation +
                               1 - test.left - test.right;
  const std::int64_t taps = test.height * test.width;
  const Values values = !extreme                    ? Values::random
                        : std::is_same_v<Src, half> ? Values::highest
                                                    : Values::lowest;
  const GuardedRows<Src> rows(test.height, columns * test.channels);
  for (const Guarded<Src>& row : rows) draw(random, values, row, kWorstHalf);
  const Guarded<Src> padding(test.channels);
  draw(random, values, padding, kWorstHalf);
  std::vector<float> weights;
  for (std::int64_t i = 0; i < test.channels * taps; ++i)
    weights.push_back(extreme ? -1.0F : random.uniform(-1, 1));
  const PackedWeights packed = pack_depthwise_weights(weights.data(), test.channels, test.height,
                                                      test.width, kernel.weights);
  const Guarded<std::byte> guarded(static_cast<std::int64_t>(packed.data.size()));
  std::copy(packed.data.begin(), packed.data.end(), guarded.data());
  std::vector<std::int32_t> correction;
  std::vector<float> multiplier;
  std::vector<float> bias;
  for (std::int64_t c = 0; c < test.channels; ++c) {
    correction.push_back(static_cast<std::int32_t>(random.integer(-20000, 20000)));
    multiplier.push_back(std::is_same_v<Src, half> ? 1 : random.uniform(0.0001F, 0.003F));
    bias.push_back(random.uniform(-1, 1));
  }
  OutputStage stage;
  stage.correction = correction.data();
  // In fp16 multipliers are 1, or left out.
  const bool plain = std::is_same_v<Src, half> && random.integer(0, 1) == 1;
  stage.multiplier = plain ? nullptr : multiplier.data();
  stage.bias = bias.data();
  stage.nonlinearity = nonlinearity;
  stage.post_scale = std::is_same_v<Dst, half> ? 1.0F : 60.0F;
  stage.zero_point = static_cast<std::int32_t>(random.integer(-20, 20));
  stage.lo = std::is_same_v<Dst, half> ? -INFINITY : static_cast<float>(-100 - stage.zero_point);
  stage.hi = std::is_same_v<Dst, half> ? INFINITY : static_cast<float>(127 - stage.zero_point);
  const std::int64_t count = test.pixels * test.channels;
  const Destination<Dst> dst(1, count, count);
  kernel.function({.rows = rows.pointers(),
                   .padding = padding.data(),
                   .width = columns,
                   .left = test.left,
                   .kernel_height = test.height,
                   .kernel_width = test.width,
                   .stride = test.stride,
                   .dilation = test.dilation,
                   .channels = test.channels,
                   .pixel_count = test.pixels,
                   .weights = guarded.data(),
                   .dst = dst.data(),
                   .output = &stage});
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t c = i % test.channels;
    const auto at = static_cast<std::size_t>(c);
    double sum = std::is_same_v<Src, half> ? 0 : correction[at];
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int64_t x =
          i / test.channels * test.stride + tap % test.width * test.dilation - test.left;
      const Guarded<Src>& row = rows[tap / test.width];
      const Src source = x >= 0 && x < columns ? row[x * test.channels + c] : padding[c];
      const float weight = weights[static_cast<std::size_t>(c * taps + tap)];
      if constexpr (std::is_same_v<Src, half>) {
        sum += double{to_float(source)} * to_float(to_half(weight));
      } else {
        sum += source * std::nearbyint(weight / packed.scales[at]);
      }
    }
    Dst expected{};
    store(stage, output_level(stage, static_cast<float>(sum), c), &expected);
    if constexpr (std::is_same_v<Src, half>) {
      // Each addition rounds by 2^-11 of a sum of this size.
      const float size = extreme ? kWorstHalf * static_cast<float>(taps) : 3.0F;
      const float tolerance = std::exp2(-11.0F) * static_cast<float>(taps) * size;
      if (std::abs(to_float(dst.at(0, i)) - to_float(expected)) <= tolerance) continue;
    }
    check_element(dst, i, expected, trial);
  }
  dst.check_rest(1, trial);
}

void check(const DepthwiseKernel& kernel, Trial& trial) {
  for (const Case& test : kCases) {
    for (const bool extreme : {false, true}) {
      for (const Nonlinearity nonlinearity : {Nonlinearity::clamp, Nonlinearity::tanh}) {
        with_types(kernel, [&](auto src, auto dst) {
          check_case<decltype(src), decltype(dst)>(kernel, trial, test, extreme, nonlinearity);
        });
      }
    }
  }
}

/// A row of 56 pixels of 64 channels, stride 1.
Bench bench(const DepthwiseKernel& kernel) {
  constexpr std::int64_t kPixels = 56;
  constexpr std::int64_t kChannels = 64;
  struct Data {
    AlignedVector<half> row = *random_halves((kPixels + 2) * kChannels, 1);
    PackedWeights weights;
    std::vector<std::int32_t> correction = std::vector<std::int32_t>(kChannels);
    std::vector<float> multiplier = std::vector<float>(kChannels, 1.0F);
    std::vector<float> bias = std::vector<float>(kChannels);
    AlignedVector<half> dst = *random_halves(kPixels * kChannels, 2);
    OutputStage stage;
  };
  const auto data = std::make_shared<Data>();
  const std::vector<float> weights(kChannels * 9, 0.5F);
  data->weights = pack_depthwise_weights(weights.data(), kChannels, 3, 3, kernel.weights);
  data->stage.correction = data->correction.data();
  data->stage.multiplier = kernel.src == DType::f16 ? nullptr : data->multiplier.data();
  data->stage.bias = data->bias.data();
  data->stage.lo = -100;
  data->stage.hi = 100;
  return {.amount = kPixels * kChannels * 9, .unit = "macs", .run = [&kernel, data] {
            const half* row = data->row.data();
            const void* rows[] = {row, row, row};
            kernel.function({.rows = rows,
                             .padding = row,
                             .width = kPixels + 2,
                             .kernel_height = 3,
                             .kernel_width = 3,
                             .channels = kChannels,
                             .pixel_count = kPixels,
                             .weights = data->weights.data.data(),
                             .dst = data->dst.data(),
                             .output = &data->stage});
          }};
}

}  // namespace

void append_depthwise(std::vector<Subject>& subjects) {
  append_rows(subjects, depthwise_kernels(), check, bench);
}

}  // namespace qpp::check
