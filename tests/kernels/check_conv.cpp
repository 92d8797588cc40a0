// SPDX-License-Identifier: Apache-2.0
//
// Convolutions of both families against a plain loop. From int8 sources every bit is compared; from
// fp16 sources small integers exactly, other numbers within a bound that follows from the rounding
// of the kernels' sums.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include "checkkernels.h"
#include "kernels/magic_bias.h"
#include "kernels/pack.h"
#include "kernels/select.h"
#include "tensor/outliers.h"

namespace qpp::check {
namespace {

/// Whether a kernel is of family conv3x3s1, else of family conv.
bool is_3x3s1(const ConvKernel& kernel) {
  return std::string_view(kernel.info.name).starts_with("conv3x3s1_");
}

struct Shape {
  std::int64_t channels;  // unpadded
  std::int64_t filters;
  std::int64_t taps;
  std::int64_t pixel_count;
};

/// How sources, weights and the output stage are drawn.
enum class Data : std::uint8_t {
  random,       // numbers of the whole range
  extreme,      // int8 only: -128 or 127 throughout, sums of the largest magnitude
  alternating,  // int8 only: neighbouring channels of opposite sign
  integers,     // fp16 only: small integers, whose sums are exact in every format
  non_finite,   // fp16 only: NaN and infinity among random numbers
  activations,  // fp16 only: as in networks: normal weights and rectified normal sources
};

const char* name_of(Data data) {
  constexpr const char* kNames[] = {"random",   "extreme",    "alternating",
                                    "integers", "non-finite", "activations"};
  return kNames[static_cast<int>(data)];
}

/// The output stages, one of each for every case in turn.
enum class Stage : std::uint8_t { full, relu, narrow, tanh, tiny, huge };
constexpr int kStages = 6;

const char* name_of(Stage stage) {
  constexpr const char* kNames[] = {"full range", "relu", "narrow", "tanh", "tiny", "huge"};
  return kNames[static_cast<int>(stage)];
}

/// The operands and the expected result of one call.
template <typename Dst, typename Src>
class ConvCase {
 public:
  static constexpr bool kExactSums = std::is_same_v<Src, std::int8_t>;
  static constexpr bool kQuantized = !std::is_same_v<Dst, half>;
  static constexpr bool kLevels = std::is_same_v<Dst, std::int16_t>;

  ConvCase(const ConvKernel& kernel, const Shape& shape, Data data, Stage stage, Trial& trial)
      : kernel_(kernel),
        shape_(shape),
        data_(data),
        trial_(trial),
        random_(trial.random),
        padded_channels_(round_up<std::int64_t>(shape.channels, 8)),
        dst_stride_(shape.filters + (random_.bits() % 2 == 0 ? 0 : 24)),
        dst_(kernel.mr, shape.filters, dst_stride_) {
    trial.begin(std::to_string(shape.channels) + " channels, " + std::to_string(shape.filters) +
                " filters, " + std::to_string(shape.taps) + " taps, " +
                std::to_string(shape.pixel_count) + " pixels, " + name_of(data) + ", " +
                name_of(stage));
    draw_weights();
    draw_sources();
    if (kExactSums && random_.bits() % 2 == 0) draw_sparse();
    if (stage != Stage::tanh && data != Data::activations && random_.bits() % 2 == 0) {
      draw_residual();
    }
    draw_output(stage);
  }

  /// Runs the kernel and compares all it wrote.
  void check() {
    Range range;
    output_.range = kQuantized || random_.bits() % 4 == 0 ? nullptr : &range;
    run();
    for (std::int64_t p = 0; p < shape_.pixel_count; ++p) {
      for (std::int64_t f = 0; f < shape_.filters; ++f) compare(p, f);
    }
    dst_.check_rest(shape_.pixel_count, trial_);
    if (output_.range != nullptr) compare_range(range);
  }

  /// Runs, and adds up the squares of the errors and of the exact levels.
  void add_squares(double& error, double& power) {
    run();
    for (std::int64_t p = 0; p < shape_.pixel_count; ++p) {
      for (std::int64_t f = 0; f < shape_.filters; ++f) {
        const double level = output_level(output_, static_cast<float>(sum(p, f).value), f);
        error += std::pow(to_float(dst_.at(p, f)) - level, 2);
        power += std::pow(level, 2);
      }
    }
  }

 private:
  void run() const {
    ConvArgs args{.taps = shape_.taps,
                  .channels = packed_.channels,
                  .pixel_count = shape_.pixel_count,
                  .filters = shape_.filters,
                  .empty_filters = empty_filters_,
                  .weights = guarded_weights_->data(),
                  .dst = dst_.data(),
                  .dst_stride = dst_stride_,
                  .output = &output_,
                  .sparse = sparse_ == nullptr ? nullptr : sparse_->data(),
                  .residual = residual_ == nullptr ? nullptr : residual_->data()};
    if (!is_3x3s1(kernel_)) {
      args.pixels = pixels_.data();
    } else {
      args.src = sources_->data();
      args.src_row_stride = row_stride_;
      args.src_pixel_stride = pixel_stride_;
    }
    kernel_.function(args);
  }

  float draw_source(std::int64_t i) {
    switch (data_) {
      case Data::random:
        return kExactSums ? static_cast<float>(random_.integer(-128, 127)) : random_.normal();
      case Data::extreme:
        return extreme_;
      case Data::alternating:
        return i % 2 == 0 ? -128.0F : 127.0F;
      case Data::integers:
        return static_cast<float>(random_.integer(-2, 2));
      case Data::non_finite:
        return random_.bits() % 64 != 0  ? random_.normal()
               : random_.bits() % 2 == 0 ? NAN
                                         : INFINITY;
      case Data::activations:
        return std::max(random_.normal(), 0.0F);
    }
    return 0;
  }

  float draw_weight(std::int64_t channel) {
    switch (data_) {
      case Data::random:
        return kExactSums ? static_cast<float>(random_.integer(-127, 127)) : random_.normal();
      case Data::extreme:
        return 127;
      case Data::alternating:
        return channel % 2 == 0 ? -127.0F : 127.0F;
      case Data::integers:
        return static_cast<float>(random_.integer(-2, 2));
      case Data::non_finite:
        return random_.normal();
      case Data::activations:
        return random_.normal() *
               std::sqrt(2.0F / static_cast<float>(shape_.channels * shape_.taps));
    }
    return 0;
  }

  /// Weights OIHW. For qsi8 they are integers up to 127, so that packing keeps them as they are.
  void draw_weights() {
    const std::int64_t per_filter = shape_.channels * shape_.taps;
    if (random_.bits() % 2 == 0) empty_filters_ = random_.integer(0, 7);
    weights_.resize(static_cast<std::size_t>(shape_.filters * per_filter));
    for (std::int64_t i = 0; i < (shape_.filters - empty_filters_) * per_filter; ++i) {
      float weight = draw_weight(i % per_filter / shape_.taps);
      if (kExactSums && i % per_filter == 0) weight = std::copysign(127.0F, weight);
      weights_[static_cast<std::size_t>(i)] = to_float(to_half(weight));
    }
    packed_ = pack_conv_weights(weights_.data(), shape_.filters, shape_.channels, shape_.taps,
                                kernel_.weights, kernel_.nr, kernel_.kr);
    guarded_weights_ = std::make_unique<Guarded<std::byte>>(
        round_up(static_cast<std::int64_t>(packed_.data.size()), std::int64_t{kAlignment}));
    std::copy(packed_.data.begin(), packed_.data.end(), guarded_weights_->data());
  }

  void draw_sources() {
    extreme_ = random_.bits() % 2 == 0 ? -128.0F : 127.0F;
    const std::int64_t mr = kernel_.mr;
    if (!is_3x3s1(kernel_)) {
      // Twice as many places as pixels and taps may need; the last one is always used.
      const std::int64_t places = random_.integer(1, 2 * mr * shape_.taps);
      sources_ = std::make_unique<Guarded<Src>>(places * padded_channels_);
      for (std::int64_t i = 0; i < mr * shape_.taps; ++i) {
        const std::int64_t place =
            i % mr == 0 && i / mr == shape_.taps - 1 ? places - 1 : random_.integer(0, places - 1);
        pixels_.push_back(sources_->data() + place * padded_channels_);
      }
    } else {
      pixel_stride_ = padded_channels_ + (random_.bits() % 2 == 0 ? 0 : 8);
      row_stride_ = (mr + 2 + random_.integer(0, 3)) * pixel_stride_;
      // The last pixel is readable up to its padding only.
      const std::int64_t last = 2 * row_stride_ + (mr + 1) * pixel_stride_;
      sources_ = std::make_unique<Guarded<Src>>(last + padded_channels_);
    }
    for (std::int64_t i = 0; i < sources_->count(); ++i) {
      const float value = draw_source(i);
      if constexpr (kExactSums) {
        (*sources_)[i] = static_cast<std::int8_t>(value);
      } else {
        (*sources_)[i] = to_half(value);
      }
    }
  }

  /// Sums of a sparse part, of the size of the dense one, and the largest at times.
  void draw_sparse() {
    sparse_ = std::make_unique<Guarded<half>>(shape_.pixel_count * shape_.filters);
    for (std::int64_t i = 0; i < sparse_->count(); ++i) {
      if (i % shape_.filters >= shape_.filters - empty_filters_) continue;
      const bool largest = data_ == Data::extreme || random_.bits() % 64 == 0;
      (*sparse_)[i] =
          to_half(largest ? std::copysign(65504.0F, random_.normal()) : random_.normal() * 2000);
    }
    trial_.note("sparse");
  }

  /// A residual of either type, of the size of the sums, that ends with the last pixel.
  void draw_residual() {
    ResidualStage& stage = output_.residual;
    stage.dtype = random_.bits() % 2 == 0 ? DType::qai8 : DType::f16;
    const bool bytes = stage.dtype == DType::qai8;
    const float size = kQuantized ? 70 : 3;
    const std::int64_t count = (shape_.pixel_count - 1) * dst_stride_ + shape_.filters;
    residual_ =
        std::make_unique<GuardedBytes>(static_cast<std::size_t>(count) * size_of(stage.dtype));
    for (std::int64_t i = 0; i < count; ++i) {
      if (bytes) {
        const std::int64_t value =
            data_ == Data::extreme ? (extreme_ < 0 ? 127 : -128) : random_.integer(-128, 127);
        residual_->data()[i] = static_cast<std::byte>(value);
      } else {
        const float value = data_ == Data::integers ? static_cast<float>(random_.integer(-9, 9))
                                                    : random_.normal() * 3;
        reinterpret_cast<half*>(residual_->data())[i] = to_half(value);
      }
    }
    if (bytes) stage.zero_point = static_cast<std::int32_t>(random_.integer(-128, 127));
    if (bytes || kQuantized) stage.scale = random_.uniform(0.2F, 2) * size / (bytes ? 128 : 3);
    if (data_ == Data::integers) stage.scale = bytes ? 0.5F : 1;
    trial_.note(bytes ? "int8 residual" : "fp16 residual");
  }

  [[nodiscard]] std::optional<float> residual(std::int64_t p, std::int64_t f) const {
    if (residual_ == nullptr) return {};
    return residual_at(output_.residual, residual_->data(), p * dst_stride_ + f);
  }

  [[nodiscard]] const Src* source(std::int64_t p, std::int64_t tap) const {
    if (!is_3x3s1(kernel_))
      return static_cast<const Src*>(pixels_[static_cast<std::size_t>(tap * kernel_.mr + p)]);
    return sources_->data() + tap / 3 * row_stride_ + (p + tap % 3) * pixel_stride_;
  }

  void draw_output(Stage stage) {
    const std::size_t padded = packed_.scales.size();
    const std::int32_t zero_point_in = static_cast<std::int32_t>(random_.integer(-128, 127));
    // Of the size of the sums, so that levels fill the range of a byte and pass it at times.
    const auto terms = static_cast<float>(shape_.channels * shape_.taps);
    const float sum = kExactSums ? 6000 * std::sqrt(terms) : 1.5F * std::sqrt(terms);
    const float target = kQuantized ? 70.0F : 3.0F;
    for (std::size_t f = 0; f < padded; ++f) {
      correction_.push_back(kExactSums ? -zero_point_in * packed_.sums[f] : 0);
      float multiplier = packed_.scales[f] * random_.uniform(0.5F, 1) * target / sum;
      if (!kExactSums && data_ == Data::integers) multiplier = 0.5F;
      if (stage == Stage::tiny) multiplier *= 1e-30F;
      if (stage == Stage::huge) multiplier *= 1e30F;
      multiplier_.push_back(multiplier);
      bias_.push_back(data_ == Data::integers ? static_cast<float>(random_.integer(-9, 9))
                                              : random_.uniform(-target, target));
    }
    if (data_ == Data::activations) {
      std::fill(multiplier_.begin(), multiplier_.end(), 1.0F);
      std::fill(bias_.begin(), bias_.end(), 0.0F);
    }
    output_.correction = correction_.data();
    output_.multiplier = multiplier_.data();
    output_.bias = bias_.data();
    if (stage == Stage::tanh) {
      output_.nonlinearity = Nonlinearity::tanh;
      output_.post_scale = kQuantized ? 127.0F : 1.0F;
      for (float& multiplier : multiplier_) multiplier /= target;
    }
    if (kQuantized) {
      constexpr std::int32_t kZeroPoints[] = {-128, 127, 0, 5};
      constexpr std::int32_t kResidual = kLevels ? 3840 : 0;
      output_.zero_point = kZeroPoints[random_.integer(0, 3)];
      output_.lo = static_cast<float>(-128 - output_.zero_point - kResidual);
      output_.hi = static_cast<float>(127 - output_.zero_point + kResidual);
    } else if (stage == Stage::huge) {
      output_.lo = -60000;
      output_.hi = 60000;
    }
    if (stage == Stage::relu) output_.lo = std::max(output_.lo, 0.0F);
    if (stage == Stage::narrow) {
      output_.lo = std::max(output_.lo, -target / 8.3F);
      output_.hi = std::max(output_.lo, std::min(output_.hi, target / 7.7F));
    }
    output_.hi = std::max(output_.hi, output_.lo);
    if (stage > Stage::narrow || random_.bits() % 4 == 0) return;
    if constexpr (kExactSums) {
      take_fast_path(zero_point_in);
    } else if constexpr (!kQuantized) {
      std::fill(multiplier_.begin(), multiplier_.end(), 1.0F);
      output_.multiplier = nullptr;
    }
  }

  /// Takes the magic-bias fast path of the output stage, where all filters allow it.
  void take_fast_path(std::int32_t zero_point_in) {
    residual_factor_.resize(packed_.scales.size());
    general_output_ = output_;
    general_multiplier_ = multiplier_;
    general_bias_ = bias_;
    general_correction_ = correction_;
    general_output_.multiplier = general_multiplier_.data();
    general_output_.bias = general_bias_.data();
    const RunSums sums{.weights = packed_,
                       .zero_point = zero_point_in,
                       .sparse = sparse_ == nullptr ? 0 : kMaxSparseSum};
    constexpr DType kDst = kLevels ? DType::qai16 : kQuantized ? DType::qai8 : DType::f16;
    if (!packed_.magnitudes.empty() &&
        try_fast_requantization(sums, kDst, residual_ != nullptr,
                                {.correction = correction_.data(),
                                 .multiplier = multiplier_.data(),
                                 .bias = bias_.data(),
                                 .residual_factor = residual_factor_.data()},
                                output_)) {
      trial_.note("fast path");
      if (kQuantized && residual_ != nullptr) trial_.note("fast path with residual");
      return;
    }
    correction_ = general_correction_;
    multiplier_ = general_multiplier_;
    bias_ = general_bias_;
    output_.correction = correction_.data();
    output_.multiplier = multiplier_.data();
    output_.bias = bias_.data();
  }

  struct Sum {
    double value;
    double magnitude;  // the sum of the products' magnitudes
  };

  /// The expected accumulator of pixel p and filter f; exact for int8.
  [[nodiscard]] Sum sum(std::int64_t p, std::int64_t f) const {
    Sum sum{static_cast<double>(correction_[static_cast<std::size_t>(f)]), 0};
    if (sparse_ != nullptr) {
      sum.value = initial_sum(output_, f, to_float((*sparse_)[p * shape_.filters + f]));
    }
    for (std::int64_t tap = 0; tap < shape_.taps; ++tap) {
      const Src* pixel = source(p, tap);
      for (std::int64_t c = 0; c < shape_.channels; ++c) {
        const auto at = static_cast<std::size_t>((f * shape_.channels + c) * shape_.taps + tap);
        const double product = static_cast<double>(value_of(pixel[c])) * weights_[at];
        sum.value += product;
        sum.magnitude += std::abs(product);
      }
    }
    return sum;
  }
  static float value_of(std::int8_t value) { return value; }
  static float value_of(half value) { return to_float(value); }

  void compare(std::int64_t p, std::int64_t f) const {
    const auto [value, magnitude] = sum(p, f);
    OutputStage without_range = output_;
    without_range.range = nullptr;
    Dst expected{};
    float level = 0;
    if (!output_.magic_bias_accumulators) {
      level = output_level(output_, static_cast<float>(value), f, residual(p, f));
      store(without_range, level, &expected);
    } else if constexpr (kLevels) {
      store_magic_bias(without_range, static_cast<std::int32_t>(value), f, &expected);
    } else {
      store_magic_bias(without_range, static_cast<std::int32_t>(value), f, &expected,
                       residual_ == nullptr ? nullptr : residual_->data(), p * dst_stride_ + f);
    }
    const Dst got = dst_.at(p, f);
    if (output_.magic_bias_accumulators) compare_paths(expected, value, p, f);
    if (same(got, expected)) return;
    const bool rounded = !kExactSums && data_ != Data::integers && std::isfinite(magnitude);
    if (rounded && is_close(got, level, magnitude, f)) return;
    trial_.fail("pixel " + std::to_string(p) + ", filter " + std::to_string(f) + " is " +
                text(got) + ", expected " + text(expected));
  }

  /// The fast path gives the same as the general formula, within its tolerance.
  void compare_paths(Dst fast, double accumulator, std::int64_t p, std::int64_t f) const {
    const auto at = static_cast<std::size_t>(f);
    const double value = accumulator - correction_[at] + general_correction_[at];
    const float level = output_level(general_output_, static_cast<float>(value), f, residual(p, f));
    const double step = std::abs(static_cast<double>(general_multiplier_[at]));
    double error = 0;
    double bound = 0;
    if constexpr (kQuantized) {
      const float clamped = clamp_level(fast, output_.lo, output_.hi);
      const auto zero_point = static_cast<float>(output_.zero_point);
      error = static_cast<double>(clamped) -
              static_cast<double>(clamp_level(level + zero_point, output_.lo, output_.hi));
      bound = 0.5 + step / 2 + 1e-4 + 0x1p-21 * std::abs(static_cast<double>(level));
      if (residual_ != nullptr)
        bound += std::abs(double{*residual(p, f)}) * step / 2;  // its factor
    } else {
      error = static_cast<double>(to_float(fast)) - static_cast<double>(level);
      bound = step + 0x1p-10 * std::abs(static_cast<double>(level));
    }
    if (!(std::abs(error) <= bound)) {
      trial_.fail("pixel " + std::to_string(p) + ", filter " + std::to_string(f) +
                  ": the fast path gives " + text(fast) + ", the general level is " + text(level));
    }
  }

  /// Sums of fp16 products: in a chain of at most 39, each addition errs by half a unit in the last
  /// place (2^-11 relative) of a partial sum, which is at most the sum of magnitudes; so do the 18
  /// additions of chains, the last addition, that of a bias rounded to fp16 and the rounding of the
  /// result. Wider sums err by less.
  bool is_close(Dst got, float level, double magnitude, std::int64_t filter) const {
    const auto at = static_cast<std::size_t>(filter);
    double bound =
        (39 + 18 + 2) * 0x1p-11 * magnitude * std::abs(static_cast<double>(multiplier_[at]));
    if (output_.multiplier == nullptr) {
      bound += 0x1p-10 * std::abs(static_cast<double>(bias_[at]));
      // The sum without a residual is rounded, too.
      if (residual_ != nullptr) bound += 0x1p-11 * (magnitude + std::abs(level) + 9);
    }
    // The slope of tanh is at most 1.
    if (output_.nonlinearity == Nonlinearity::tanh) bound *= output_.post_scale;
    if constexpr (kQuantized) {
      return std::abs(got - output_.zero_point - static_cast<double>(level)) <= bound + 0.5 + 1e-5;
    } else {
      return std::abs(static_cast<double>(to_float(got)) - static_cast<double>(level)) <=
             bound + 0x1p-11 * std::abs(static_cast<double>(level)) + 0x1p-24;
    }
  }

  void compare_range(const Range& range) const {
    if constexpr (!kQuantized) {
      Range expected;
      for (std::int64_t p = 0; p < shape_.pixel_count; ++p) {
        for (std::int64_t f = 0; f < shape_.filters; ++f)
          extend_range(expected, to_float(dst_.at(p, f)));
      }
      if (!same(range.lo, expected.lo) || !same(range.hi, expected.hi)) {
        trial_.fail("the range is " + text(range.lo) + " to " + text(range.hi) + ", but " +
                    text(expected.lo) + " to " + text(expected.hi) + " was stored");
      }
    }
  }

  const ConvKernel& kernel_;
  Shape shape_;
  Data data_;
  Trial& trial_;
  Random& random_;
  std::int64_t padded_channels_;
  std::int64_t dst_stride_;
  Destination<Dst> dst_;
  std::int64_t empty_filters_ = 0;
  std::vector<float> weights_;
  PackedWeights packed_;
  std::unique_ptr<Guarded<std::byte>> guarded_weights_;
  std::unique_ptr<Guarded<Src>> sources_;
  std::unique_ptr<Guarded<half>> sparse_;
  std::unique_ptr<GuardedBytes> residual_;
  std::vector<const void*> pixels_;
  std::int64_t pixel_stride_ = 0;
  std::int64_t row_stride_ = 0;
  float extreme_ = 0;
  std::vector<std::int32_t> correction_;
  std::vector<float> multiplier_;
  std::vector<float> bias_;
  std::vector<std::int16_t> residual_factor_;
  OutputStage output_;
  std::vector<std::int32_t> general_correction_;  // of the general path
  std::vector<float> general_multiplier_;
  std::vector<float> general_bias_;
  OutputStage general_output_;
};

constexpr std::int64_t kChannels[] = {1, 3, 4, 8, 12, 20, 64};
constexpr std::int64_t kFilters[] = {8, 40, 16, 24};
constexpr std::int64_t kTaps[] = {1, 9, 25};

/// The error on data as in networks is below 1e-3 of the level, as root mean square.
///
/// A rounding to fp16 errs by 2.07e-4 of the partial sum, as root mean square (mantissas being
/// spread evenly in the logarithm), and a partial sum of n of N products has n/N of the variance of
/// all. So chains of 32 products, of which the half is zero, add 8.5 times the square of that,
/// groups of 9 chains 4.9 times, the sum of two groups and the result once each: 8.1e-4 in all. One
/// case of 8 x 16 outputs, which share sources and weights, scatters around that by 11 %; kCases
/// together by 4 %.
void check_rms_error(const ConvKernel& kernel, std::int64_t channels, Trial& trial) {
  constexpr int kCases = 8;
  double error = 0;
  double power = 0;
  for (int i = 0; i < kCases; ++i) {
    const Shape shape{.channels = channels, .filters = 16, .taps = 9, .pixel_count = kernel.mr};
    ConvCase<half, half>(kernel, shape, Data::activations, Stage::full, trial)
        .add_squares(error, power);
  }
  const double relative = std::sqrt(error / power);
  if (!(relative < 1e-3)) trial.fail("relative rms error " + std::to_string(relative));
}

template <typename Dst, typename Src>
void check_conv(const ConvKernel& kernel, Trial& trial) {
  std::vector<Data> kinds = {Data::random, Data::extreme, Data::alternating};
  if (std::is_same_v<Src, half>) kinds = {Data::random, Data::integers, Data::non_finite};
  std::int64_t number = 0;
  const auto check = [&](Shape shape, Data data, Stage stage) {
    if (is_3x3s1(kernel)) {
      shape.taps = 9;
      shape.pixel_count = kernel.mr;
    }
    ConvCase<Dst, Src>(kernel, shape, data, stage, trial).check();
  };
  for (const std::int64_t channels : kChannels) {
    for (const std::int64_t taps : kTaps) {
      for (const Data data : kinds) {
        const Shape shape{.channels = channels,
                          .filters = kFilters[number % 4],
                          .taps = taps,
                          .pixel_count = 1 + number % kernel.mr};
        check(shape, data, static_cast<Stage>(number % kStages));
        ++number;
      }
    }
  }
  // For fp16 destinations only the smaller half of the sums allows it, for int8 not every residual.
  if (std::is_same_v<Src, std::int8_t> && trial.notes("fast path") < number / 12) {
    trial.fail("the fast path was hardly taken");
  }
  for (std::int64_t pixel_count = 1; pixel_count <= kernel.mr; ++pixel_count) {
    for (int stage = 0; stage < kStages; ++stage) {
      check({.channels = 12, .filters = 24, .taps = 9, .pixel_count = pixel_count}, kinds[0],
            static_cast<Stage>(stage));
    }
  }
  const bool bytes = std::is_same_v<Dst, std::int8_t> && std::is_same_v<Src, std::int8_t>;
  if (bytes && trial.notes("fast path with residual") == 0) {
    trial.fail("the fast path was never taken with a residual");
  }
  if constexpr (std::is_same_v<Dst, half> && std::is_same_v<Src, half>) {
    for (const std::int64_t channels : {64, 512}) check_rms_error(kernel, channels, trial);
  }
}

void check_row(const ConvKernel& kernel, Trial& trial) {
  if (kernel.src == DType::qai8) {
    if (kernel.dst == DType::qai8) check_conv<std::int8_t, std::int8_t>(kernel, trial);
    if (kernel.dst == DType::qai16) check_conv<std::int16_t, std::int8_t>(kernel, trial);
    if (kernel.dst == DType::f16) check_conv<half, std::int8_t>(kernel, trial);
  } else {
    if (kernel.dst == DType::qai8) check_conv<std::int8_t, half>(kernel, trial);
    if (kernel.dst == DType::f16) check_conv<half, half>(kernel, trial);
  }
}

/// 3x3, stride 1, 64 channels to 64 filters on an image of 56x56 pixels that has its border around
/// it, so that all tiles are alike.
class ConvBench {
 public:
  static constexpr std::int64_t kSize = 56;
  static constexpr std::int64_t kDepth = 64;  // channels and filters
  static constexpr std::int64_t kMacs = kSize * kSize * kDepth * kDepth * 9;

  explicit ConvBench(const ConvKernel& kernel)
      : kernel_(kernel),
        src_((kSize + 2) * (kSize + 2) * kDepth * size_of(kernel.src)),
        dst_(kSize * kSize * kDepth * size_of(kernel.dst)),
        correction_(kDepth),
        multiplier_(kDepth, 1e-3F),
        bias_(kDepth) {
    const auto numbers =
        random_halves(static_cast<std::int64_t>(src_.size() / size_of(kernel.src)), 1);
    for (std::size_t i = 0; i < numbers->size(); ++i) {
      const half value = (*numbers)[i];
      const auto level = static_cast<std::int8_t>(127 * to_float(value));
      if (kernel.src == DType::f16) std::memcpy(&src_[2 * i], &value, 2);
      if (kernel.src == DType::qai8) std::memcpy(&src_[i], &level, 1);
    }
    std::vector<float> weights(kDepth * kDepth * 9);
    Random random(2);
    for (float& weight : weights) weight = random.normal();
    weights_ =
        pack_conv_weights(weights.data(), kDepth, kDepth, 9, kernel.weights, kernel.nr, kernel.kr);
    output_.correction = correction_.data();
    output_.multiplier = multiplier_.data();
    output_.bias = bias_.data();
    output_.lo = -128;
    output_.hi = 127;
  }

  void run() {
    Range range;
    if (kernel_.dst == DType::f16) output_.range = &range;
    std::vector<const void*> pixels(static_cast<std::size_t>(9 * kernel_.mr));
    ConvArgs args{.pixels = pixels.data(),
                  .src_row_stride = (kSize + 2) * kDepth,
                  .src_pixel_stride = kDepth,
                  .taps = 9,
                  .channels = kDepth,
                  .filters = kDepth,
                  .weights = weights_.data.data(),
                  .dst_stride = kDepth,
                  .output = &output_};
    for (std::int64_t y = 0; y < kSize; ++y) {
      for (std::int64_t x = 0; x < kSize; x += kernel_.mr) {
        args.pixel_count = std::min<std::int64_t>(kernel_.mr, kSize - x);
        args.src = source(y, x);
        args.dst = dst_.data() +
                   (y * kSize + x) * kDepth * static_cast<std::int64_t>(size_of(kernel_.dst));
        if (!is_3x3s1(kernel_)) {
          auto pixel = pixels.begin();
          for (std::int64_t ky = 0; ky < 3; ++ky) {
            for (std::int64_t kx = 0; kx < 3; ++kx) {
              for (std::int64_t p = 0; p < kernel_.mr; ++p) {
                *pixel++ = source(y + ky, std::min<std::int64_t>(x + p, kSize - 1) + kx);
              }
            }
          }
        }
        kernel_.function(args);
      }
    }
  }

 private:
  [[nodiscard]] const std::byte* source(std::int64_t y, std::int64_t x) const {
    return src_.data() +
           (y * (kSize + 2) + x) * kDepth * static_cast<std::int64_t>(size_of(kernel_.src));
  }

  const ConvKernel& kernel_;
  AlignedVector<std::byte> src_;
  AlignedVector<std::byte> dst_;
  AlignedVector<std::int32_t> correction_;
  AlignedVector<float> multiplier_;
  AlignedVector<float> bias_;
  PackedWeights weights_;
  OutputStage output_;
};

Bench bench(const ConvKernel& kernel) {
  const auto work = std::make_shared<ConvBench>(kernel);
  return {.amount = ConvBench::kMacs, .unit = "macs", .run = [work] { work->run(); }};
}

}  // namespace

void append_conv(std::vector<Subject>& subjects) {
  append_rows(subjects, conv_kernels(), check_row, bench);
  append_rows(subjects, conv3x3s1_kernels(), check_row, bench);
}

}  // namespace qpp::check
