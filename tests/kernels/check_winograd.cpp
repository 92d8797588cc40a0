// SPDX-License-Identifier: Apache-2.0
//
// The three kernels of the Winograd convolution against the matrices of kernels/winograd.h in
// double. Products of small integers are compared exactly, everything else by its rms error; int8
// outputs may differ by one step where a level is near the middle of two.

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

constexpr double kA = kWinogradA;
constexpr double kB = 2 * kA;
constexpr double kA2 = kA * kA;
constexpr double kB2 = kB * kB;

constexpr double kSourceMatrix[kWinogradPatch][kWinogradPatch] = {
    {kA2 * kB2, 0, -kA2 - kB2, 0, 1, 0}, {0, -kA * kB2, -kB2, kA, 1, 0},
    {0, kA * kB2, -kB2, -kA, 1, 0},      {0, -kA2 * kB, -kA2, kB, 1, 0},
    {0, kA2 * kB, -kA2, -kB, 1, 0},      {0, kA2 * kB2, 0, -kA2 - kB2, 0, 1}};

constexpr double kOutputMatrix[kWinogradTile][kWinogradPatch] = {
    {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};

/// Rounding to fp16 in every step of a transform stays below this, relative rms.
constexpr double kTransformError = 1.5e-3;

/// The rms error of many elements, relative to the exact ones.
class RelativeError {
 public:
  void add(double value, double expected) {
    error_ += (value - expected) * (value - expected);
    power_ += expected * expected;
  }
  void check(double bound, Trial& trial) const {
    if (!(std::sqrt(error_) <= bound * std::sqrt(power_))) {
      trial.fail("relative rms error " + std::to_string(std::sqrt(error_ / power_)) +
                 ", expected at most " + std::to_string(bound));
    }
  }

 private:
  double error_ = 0;
  double power_ = 0;
};

/// Elements of V, U or M: f16 or f32.
class Elements {
 public:
  Elements(DType dtype, std::int64_t count)
      : dtype_(dtype), bytes_(static_cast<std::size_t>(count) * size_of(dtype)) {
    for (std::int64_t i = 0; i < count; ++i) set(i, kCanary);
  }
  [[nodiscard]] std::byte* data() const { return bytes_.data(); }
  [[nodiscard]] float at(std::int64_t i) const {
    return dtype_ == DType::f16 ? to_float(reinterpret_cast<const half*>(data())[i])
                                : reinterpret_cast<const float*>(data())[i];
  }
  void set(std::int64_t i, float value) const {
    if (dtype_ == DType::f16) {
      reinterpret_cast<half*>(data())[i] = to_half(value);
    } else {
      reinterpret_cast<float*>(data())[i] = value;
    }
  }
  [[nodiscard]] bool untouched(std::int64_t i) const { return at(i) == kCanary; }

 private:
  static constexpr float kCanary = 1.5F;

  DType dtype_;
  GuardedBytes bytes_;
};

// ---------------------------------------------------------------------------------------- input

struct Strip {
  std::int64_t width;
  std::int64_t first_column;
  std::int64_t channels;
  std::int64_t tiles;
  std::int64_t first_tile;
  std::int64_t block_tiles;
};

const std::vector<Strip> kStrips = {
    {4, -1, 8, 1, 0, 8},    {6, 0, 8, 1, 7, 8},      {1, -1, 3, 1, 0, 8},  {7, -2, 17, 2, 3, 8},
    {64, 0, 64, 15, 0, 16}, {66, -1, 20, 16, 0, 16}, {5, 4, 8, 1, 15, 16}, {61, 24, 12, 9, 7, 16},
};

float real(half value, std::int32_t /*zero_point*/) { return to_float(value); }
float real(std::int8_t value, std::int32_t zero_point) {
  return static_cast<float>(value - zero_point);
}

template <typename Src>
void check_strip(const WinogradInputKernel& kernel, const Strip& strip, Trial& trial) {
  trial.begin(std::to_string(strip.width) + " columns from " + std::to_string(strip.first_column) +
              ", " + std::to_string(strip.channels) + " channels, " + std::to_string(strip.tiles) +
              " tiles from " + std::to_string(strip.first_tile));
  const std::int64_t padded = round_up<std::int64_t>(strip.channels, 8);
  const auto zero_point = static_cast<std::int32_t>(trial.random.integer(-128, 127));
  const GuardedRows<Src> rows(kWinogradPatch, strip.width * padded);
  WinogradInputArgs args{.width = strip.width,
                         .first_column = strip.first_column,
                         .pixel_stride = padded,
                         .channels = strip.channels,
                         .zero_point = zero_point,
                         .tiles = strip.tiles,
                         .first_tile = strip.first_tile,
                         .block_tiles = strip.block_tiles};
  std::copy_n(rows.pointers(), kWinogradPatch, args.rows);
  for (const Guarded<Src>& row : rows) {
    for (std::int64_t j = 0; j < row.count(); ++j) {
      if constexpr (std::is_same_v<Src, half>) {
        row[j] = j % padded < strip.channels ? to_half(trial.random.normal()) : half{0x7e00};
      } else {
        row[j] = static_cast<std::int8_t>(trial.random.integer(-128, 127));
      }
    }
  }
  const Elements v(kernel.dst,
                   kWinogradPoints * winograd_v_point_stride(strip.block_tiles, padded));
  args.v = v.data();
  kernel.function(args);

  const double unit = kernel.src == DType::qai8 ? kWinogradStepsPerUnit : 1;
  RelativeError error;
  for (std::int64_t tile = 0; tile < strip.block_tiles; ++tile) {
    const bool inside = tile >= strip.first_tile && tile < strip.first_tile + strip.tiles;
    for (std::int64_t c = 0; c < padded; ++c) {
      double d[kWinogradPatch][kWinogradPatch] = {};
      for (int i = 0; i < kWinogradPatch; ++i) {
        for (int j = 0; j < kWinogradPatch; ++j) {
          const std::int64_t x = strip.first_column + (tile - strip.first_tile) * kWinogradTile + j;
          if (inside && c < strip.channels && x >= 0 && x < strip.width) {
            d[i][j] = real(rows[i][x * padded + c], zero_point);
          }
        }
      }
      for (int point = 0; point < kWinogradPoints; ++point) {
        const std::int64_t at = winograd_v_index(point, tile, c, strip.block_tiles, padded);
        if (!inside) {
          if (!v.untouched(at)) trial.fail("wrote V of tile " + std::to_string(tile));
        } else if (c >= strip.channels) {
          if (!std::isfinite(v.at(at))) trial.fail("V of a padding channel is not finite");
        } else {
          double expected = 0;
          for (int i = 0; i < kWinogradPatch; ++i) {
            for (int j = 0; j < kWinogradPatch; ++j) {
              expected += kSourceMatrix[point / kWinogradPatch][i] * d[i][j] *
                          kSourceMatrix[point % kWinogradPatch][j];
            }
          }
          error.add(v.at(at), expected / unit);
        }
      }
    }
  }
  error.check(kTransformError, trial);
}

void check_input(const WinogradInputKernel& kernel, Trial& trial) {
  for (const Strip& strip : kStrips) {
    if (kernel.src == DType::qai8) {
      check_strip<std::int8_t>(kernel, strip, trial);
    } else {
      check_strip<half>(kernel, strip, trial);
    }
  }
}

Bench bench_input(const WinogradInputKernel& kernel) {
  constexpr std::int64_t kChannels = 64;
  constexpr std::int64_t kWidth = 64;
  const auto row = random_halves(kWidth * kChannels, 1);
  const auto v = std::make_shared<AlignedVector<float>>(
      kWinogradPoints * winograd_v_point_stride(kWinogradMaxBlock, kChannels));
  WinogradInputArgs args{.width = kWidth,
                         .first_column = -1,
                         .pixel_stride = kChannels,
                         .channels = kChannels,
                         .tiles = kWinogradMaxBlock,
                         .block_tiles = kWinogradMaxBlock,
                         .v = v->data()};
  std::fill_n(args.rows, kWinogradPatch, row->data());
  return {.amount = kWinogradMaxBlock * 16 * kChannels,
          .unit = "elements",
          .run = [kernel, args, row, v] { kernel.function(args); }};
}

// ------------------------------------------------------------------------------------- multiply

struct Product {
  std::int64_t channels;
  std::int64_t tiles;
  std::int64_t block_tiles;
  std::int64_t filters = kWinogradGroup;
};

const std::vector<Product> kProducts = {
    {8, 1, 8},        {16, 5, 8},     {32, 8, 8},      {40, 12, 16}, {64, 16, 16},   {136, 9, 16},
    {264, 3, 16},     {520, 8, 8},    {3, 7, 8},       {18, 16, 16}, {23, 8, 8},     {36, 3, 16},
    {37, 12, 16},     {270, 8, 8},    {18, 16, 16, 2}, {8, 1, 8, 1}, {32, 9, 16, 1}, {37, 4, 8, 2},
    {256, 12, 16, 2}, {257, 5, 8, 2}, {64, 8, 8, 3}};

void check_product(const WinogradMultiplyKernel& kernel, const Product& product, bool integers,
                   Trial& trial) {
  trial.begin(std::to_string(product.channels) + " channels, " + std::to_string(product.tiles) +
              " tiles of " + std::to_string(product.block_tiles) + ", " +
              std::to_string(product.filters) + " filters" +
              (integers ? ", integers" : ", real numbers"));
  const auto draw = [&] {
    return integers ? static_cast<float>(trial.random.integer(-1, 1))
                    : to_float(to_half(trial.random.normal()));
  };
  const std::int64_t padded = round_up<std::int64_t>(product.channels, kWinogradGroup);
  const std::int64_t v_stride = winograd_v_point_stride(product.block_tiles, padded);
  const Elements v(kernel.src, kWinogradPoints * v_stride);
  for (std::int64_t i = 0; i < kWinogradPoints * v_stride; ++i) v.set(i, draw());
  const std::int64_t u_size = kWinogradPoints * padded * kWinogradGroup;
  const Elements u(kernel.weights, u_size);
  const auto u_at = [&](std::int64_t point, std::int64_t c, std::int64_t f) {
    return winograd_u_index(point, c, f, product.filters, padded);
  };
  for (std::int64_t point = 0; point < kWinogradPoints; ++point) {
    for (std::int64_t c = 0; c < padded; ++c) {
      for (std::int64_t f = 0; f < kWinogradGroup; ++f) {
        u.set(u_at(point, c, f), c < product.channels && f < product.filters ? draw() : 0);
      }
    }
  }
  const Elements m(kernel.dst, winograd_m_index(kWinogradPoints, 0, 0));
  kernel.function({.v = v.data(),
                   .u = u.data(),
                   .m = m.data(),
                   .channels = product.channels,
                   .filters = product.filters,
                   .tiles = product.tiles,
                   .block_tiles = product.block_tiles});
  RelativeError error;
  for (std::int64_t point = 0; point < kWinogradPoints; ++point) {
    for (std::int64_t tile = 0; tile < kWinogradMaxBlock; ++tile) {
      for (std::int64_t f = 0; f < kWinogradGroup; ++f) {
        const std::int64_t at = winograd_m_index(point, tile, f);
        if (tile >= product.block_tiles && !m.untouched(at)) {
          trial.fail("wrote M of tile " + std::to_string(tile));
        }
        if (tile >= product.tiles) continue;
        double sum = 0;
        for (std::int64_t c = 0; c < product.channels; ++c) {
          sum += static_cast<double>(
                     v.at(winograd_v_index(point, tile, c, product.block_tiles, padded))) *
                 u.at(u_at(point, c, f));
        }
        error.add(m.at(at), sum);
      }
    }
  }
  error.check(integers ? 0 : 2e-3, trial);
}

void check_multiply(const WinogradMultiplyKernel& kernel, Trial& trial) {
  for (const Product& product : kProducts) {
    check_product(kernel, product, /*integers=*/true, trial);
    check_product(kernel, product, /*integers=*/false, trial);
  }
}

Bench bench_multiply(const WinogradMultiplyKernel& kernel) {
  constexpr std::int64_t kChannels = 64;
  // Of zeros, which are valid as f16 and f32.
  const auto operands = std::make_shared<AlignedVector<float>>(
      kWinogradPoints * winograd_v_point_stride(kWinogradMaxBlock, kChannels));
  const auto m = std::make_shared<AlignedVector<float>>(winograd_m_index(kWinogradPoints, 0, 0));
  const WinogradMultiplyArgs args{.v = operands->data(),
                                  .u = operands->data(),
                                  .m = m->data(),
                                  .channels = kChannels,
                                  .tiles = kWinogradMaxBlock,
                                  .block_tiles = kWinogradMaxBlock};
  return {.amount = kWinogradPoints * kWinogradMaxBlock * kChannels * kWinogradGroup,
          .unit = "macs",
          .run = [kernel, args, operands, m] { kernel.function(args); }};
}

// --------------------------------------------------------------------------------------- output

struct Area {
  std::int64_t tiles;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t pixel_stride;
};

const std::vector<Area> kAreas = {{1, 4, 4, 8},  {1, 1, 1, 8},    {2, 3, 7, 24},
                                  {5, 4, 18, 8}, {16, 2, 64, 16}, {16, 4, 61, 8}};

enum class Stage : std::uint8_t { relu, clamp, tanh };

template <typename Dst>
void check_area(const WinogradOutputKernel& kernel, const Area& area, Stage stage,
                std::optional<DType> added, Trial& trial) {
  constexpr bool kQuantized = std::is_same_v<Dst, std::int8_t>;
  constexpr const char* kStageNames[] = {"relu", "clamp", "tanh"};
  trial.begin(std::to_string(area.tiles) + " tiles, " + std::to_string(area.rows) + " rows, " +
              std::to_string(area.columns) + " columns, pixel stride " +
              std::to_string(area.pixel_stride) + ", " +
              kStageNames[static_cast<std::size_t>(stage)] +
              (added ? std::string(", residual ") + name_of(*added) : ""));
  const std::int64_t m_size = winograd_m_index(kWinogradPoints, 0, 0);
  const Elements m(kernel.src, m_size);
  for (std::int64_t i = 0; i < m_size; ++i) m.set(i, to_float(to_half(trial.random.normal())));

  const float steps = kQuantized ? 40.0F : 1.0F;  // of an output of about one
  const float before = stage == Stage::tanh ? 1.0F : steps;
  std::array<float, kWinogradGroup> multiplier{};
  std::array<float, kWinogradGroup> bias{};
  for (float& value : multiplier) value = trial.random.uniform(0.01F, 0.1F) * before;
  for (float& value : bias) value = trial.random.uniform(-1, 1) * before;
  OutputStage output;
  output.multiplier = multiplier.data();
  output.bias = bias.data();
  if (stage == Stage::tanh) {
    output.nonlinearity = Nonlinearity::tanh;
    output.post_scale = steps;
  }
  if (stage != Stage::clamp) output.lo = stage == Stage::relu ? 0 : -2 * steps;
  if (stage == Stage::clamp) output.lo = -0.5F * steps;
  if (stage == Stage::clamp || kQuantized) output.hi = 0.75F * steps;
  output.zero_point = kQuantized ? 5 : 0;
  Range range;
  if (!kQuantized) output.range = &range;
  const Elements constants(kernel.src, winograd_constant_index(kWinogradGroup, 0));
  fill_winograd_constants(output, kWinogradGroup, kernel.src, constants.data());

  // Ends with the last pixel.
  const std::int64_t residual_row_stride = (area.columns + 1) * area.pixel_stride;
  const std::int64_t residual_size = (area.rows - 1) * residual_row_stride +
                                     (area.columns - 1) * area.pixel_stride + kWinogradGroup;
  const GuardedBytes residual(static_cast<std::size_t>(residual_size) *
                              size_of(added.value_or(DType::qai8)));
  if (added) {
    const bool bytes = *added == DType::qai8;
    output.residual.dtype = *added;
    output.residual.scale = bytes ? steps / 64 : steps;
    output.residual.zero_point = bytes ? -7 : 0;
    for (std::int64_t i = 0; i < residual_size; ++i) {
      if (bytes) {
        residual.data()[i] = static_cast<std::byte>(trial.random.integer(-128, 127));
      } else {
        reinterpret_cast<half*>(residual.data())[i] = to_half(trial.random.normal());
      }
    }
  }

  const std::int64_t row_stride = (area.columns + 3) * area.pixel_stride;
  const Destination<Dst> dst(kWinogradTile, row_stride, row_stride);
  kernel.function({.m = m.data(),
                   .tiles = area.tiles,
                   .rows = area.rows,
                   .columns = area.columns,
                   .dst = dst.data(),
                   .dst_row_stride = row_stride,
                   .dst_pixel_stride = area.pixel_stride,
                   .constants = constants.data(),
                   .output = &output,
                   .residual = added ? residual.data() : nullptr,
                   .residual_row_stride = residual_row_stride});
  dst.check_outside(
      [&](std::int64_t row, std::int64_t column) {
        return row < area.rows && column / area.pixel_stride < area.columns &&
               column % area.pixel_stride < kWinogradGroup;
      },
      trial);

  RelativeError error;
  Range stored;
  std::int64_t different = 0;
  for (std::int64_t y = 0; y < area.rows; ++y) {
    for (std::int64_t x = 0; x < area.columns; ++x) {
      const std::int64_t tile = x / kWinogradTile;
      const auto j = static_cast<int>(x % kWinogradTile);
      for (int f = 0; f < kWinogradGroup; ++f) {
        double z = 0;
        for (int point = 0; point < kWinogradPoints; ++point) {
          z += kOutputMatrix[y][point / kWinogradPatch] * m.at(winograd_m_index(point, tile, f)) *
               kOutputMatrix[j][point % kWinogradPatch];
        }
        const double convolution = z * std::pow(kA, static_cast<double>(y + j));
        const auto filter = static_cast<std::size_t>(f);
        double level = convolution * multiplier[filter] + bias[filter];
        if (stage == Stage::tanh) level = std::tanh(level) * output.post_scale;
        if (added) {
          const std::int64_t at = y * residual_row_stride + x * area.pixel_stride + f;
          level += static_cast<double>(residual_at(output.residual, residual.data(), at)) *
                   output.residual.scale;
        }
        level = std::clamp(level, static_cast<double>(output.lo), static_cast<double>(output.hi));
        const Dst value = dst.at(y, x * area.pixel_stride + f);
        extend_range(stored, real(value, output.zero_point));
        error.add(real(value, output.zero_point), level);
        if (!kQuantized) continue;
        const double difference = std::abs(real(value, output.zero_point) - std::nearbyint(level));
        if (difference > 1)
          trial.fail("expected " + std::to_string(level) + ", got " + text(value));
        if (difference != 0) ++different;
      }
    }
  }
  if (kQuantized) {
    if (different * 20 > area.rows * area.columns * kWinogradGroup) {
      trial.fail(std::to_string(different) + " steps differ from the nearest");
    }
    return;
  }
  error.check(kTransformError, trial);
  if (range.lo != stored.lo || range.hi != stored.hi)
    trial.fail("the range is not that of the stored elements");
}

/// Output stages, and residuals.
constexpr std::pair<Stage, std::optional<DType>> kStages[] = {
    {Stage::relu, {}},          {Stage::clamp, {}},          {Stage::tanh, {}},
    {Stage::relu, DType::qai8}, {Stage::clamp, DType::qai8}, {Stage::relu, DType::f16},
    {Stage::clamp, DType::f16}};

void check_output(const WinogradOutputKernel& kernel, Trial& trial) {
  for (const Area& area : kAreas) {
    for (const auto& [stage, added] : kStages) {
      if (kernel.dst == DType::qai8) {
        check_area<std::int8_t>(kernel, area, stage, added, trial);
      } else {
        check_area<half>(kernel, area, stage, added, trial);
      }
    }
  }
}

Bench bench_output(const WinogradOutputKernel& kernel) {
  struct Operands {
    AlignedVector<float> m = AlignedVector<float>(winograd_m_index(kWinogradPoints, 0, 0));
    AlignedVector<half> dst = AlignedVector<half>(64 * kWinogradTile * kWinogradGroup);
    AlignedVector<float> constants = AlignedVector<float>(64);
    OutputStage output;
  };
  const auto operands = std::make_shared<Operands>();
  const WinogradOutputArgs args{.m = operands->m.data(),
                                .tiles = kWinogradMaxBlock,
                                .rows = kWinogradTile,
                                .columns = kWinogradMaxBlock * kWinogradTile,
                                .dst = operands->dst.data(),
                                .dst_row_stride = 64 * kWinogradGroup,
                                .dst_pixel_stride = kWinogradGroup,
                                .constants = operands->constants.data(),
                                .output = &operands->output};
  return {.amount = kWinogradMaxBlock * 16 * kWinogradGroup,
          .unit = "elements",
          .run = [kernel, args, operands] { kernel.function(args); }};
}

}  // namespace

void append_winograd(std::vector<Subject>& subjects) {
  append_rows(subjects, winograd4_input_kernels(), check_input, bench_input);
  append_rows(subjects, winograd4_multiply_kernels(), check_multiply, bench_multiply);
  append_rows(subjects, winograd4_output_kernels(), check_output, bench_output);
}

}  // namespace qpp::check
