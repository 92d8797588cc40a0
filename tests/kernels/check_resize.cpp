// SPDX-License-Identifier: Apache-2.0
//
// Bilinear interpolation, exactly as the reference, and the reference against real arithmetic.

#include <array>
#include <cmath>
#include <type_traits>

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Shape {
  std::int64_t source;  // pixels of a row
  std::int64_t pixels;
  std::int64_t rows;
  std::int64_t channels;
};

const std::vector<Shape> kShapes = {
    {1, 1, 1, 8}, {4, 8, 2, 24}, {5, 40, 8, 16}, {9, 5, 1, 40}, {3, 7, 3, 8}};

ResizeTap make_tap(Random& random, std::int64_t size) {
  ResizeTap tap;
  tap.first = static_cast<std::int32_t>(random.integer(0, size - 1));
  tap.second = static_cast<std::int32_t>(std::min<std::int64_t>(tap.first + 1, size - 1));
  const float weight = static_cast<float>(random.integer(0, 16)) / 16;
  tap.weight = to_half(weight);
  return tap;
}

/// Four weights that add up to 256.
void append_corners(Random& random, std::vector<std::uint8_t>& weights) {
  std::int64_t rest = 256;
  for (std::int64_t left = kCorners - 1; left >= 0; --left) {
    const std::int64_t least = std::max<std::int64_t>(rest - 255 * left, 0);
    const std::int64_t weight =
        left == 0 ? rest : random.integer(least, std::min<std::int64_t>(rest, 255));
    weights.push_back(static_cast<std::uint8_t>(weight));
    rest -= weight;
  }
}

template <typename T>
float number(T value) {
  if constexpr (std::is_same_v<T, half>) {
    return to_float(value);
  } else {
    return value;
  }
}

template <typename T>
void check_case(const ResizeKernel& kernel, Trial& trial, const Shape& shape, Values values) {
  trial.begin(std::to_string(shape.source) + " to " + std::to_string(shape.pixels) + " pixels, " +
              std::to_string(shape.rows) + " rows, " + std::to_string(shape.channels) +
              " channels");
  const Guarded<T> top(shape.source * shape.channels);
  const Guarded<T> bottom(shape.source * shape.channels);
  draw(trial.random, values, top);
  draw(trial.random, values, bottom);
  std::vector<ResizeTap> columns;
  std::vector<ResizeTap> rows;
  for (std::int64_t x = 0; x < shape.pixels; ++x)
    columns.push_back(make_tap(trial.random, shape.source));
  for (std::int64_t r = 0; r < shape.rows; ++r) rows.push_back(make_tap(trial.random, 2));
  std::vector<std::uint8_t> weights;
  for (std::int64_t i = 0; i < shape.rows * shape.pixels; ++i)
    append_corners(trial.random, weights);
  std::vector<const std::uint8_t*> corners;
  for (std::int64_t r = 0; r < shape.rows; ++r)
    corners.push_back(weights.data() + r * shape.pixels * kCorners);
  const std::int64_t count = shape.rows * shape.pixels * shape.channels;
  const ResizeArgs args{.top = top.data(),
                        .bottom = bottom.data(),
                        .columns = columns.data(),
                        .pixel_count = shape.pixels,
                        .rows = rows.data(),
                        .corners = corners.data(),
                        .row_count = shape.rows,
                        .channels = shape.channels};
  const Destination<T> dst(1, count, count);
  check_against_reference(resize_kernels(), kernel, args, dst, trial);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto pixel = static_cast<std::size_t>(i / shape.channels);
    const ResizeTap& column = columns[pixel % static_cast<std::size_t>(shape.pixels)];
    const ResizeTap& row = rows[pixel / static_cast<std::size_t>(shape.pixels)];
    const float down = to_float(row.weight);
    const float across = to_float(column.weight);
    const auto weight = [&](std::size_t corner, float exact) {
      return std::is_same_v<T, half> ? exact
                                     : static_cast<float>(weights[pixel * kCorners + corner]) / 256;
    };
    const auto at = [&](const Guarded<T>& source, std::int64_t place) {
      return number(source[place * shape.channels + i % shape.channels]);
    };
    const float value = at(top, column.first) * weight(0, (1 - down) * (1 - across)) +
                        at(top, column.second) * weight(1, (1 - down) * across) +
                        at(bottom, column.first) * weight(2, down * (1 - across)) +
                        at(bottom, column.second) * weight(3, down * across);
    const float tolerance =
        std::is_same_v<T, half> ? (values == Values::extreme ? 100.0F : 0.004F) : 0.501F;
    if (!(std::abs(number(dst.at(0, i)) - value) <= tolerance)) {
      trial.fail("element " + std::to_string(i) + " is " + text(dst.at(0, i)) + ", far from " +
                 text(value));
    }
  }
}

void check(const ResizeKernel& kernel, Trial& trial) {
  for (const Shape& shape : kShapes) {
    for (const Values values : {Values::random, Values::extreme}) {
      with_types(kernel, [&](auto src, auto /*dst*/) {
        check_case<decltype(src)>(kernel, trial, shape, values);
      });
    }
  }
}

/// Two rows of 56 pixels and 64 channels to two of 112.
Bench bench(const ResizeKernel& kernel) {
  const auto src = random_halves(2 * 56 * 64, 1);
  const auto dst = random_halves(2 * 112 * 64, 1);
  const auto columns = std::make_shared<std::vector<ResizeTap>>();
  Random random(1);
  const auto weights = std::make_shared<std::vector<std::uint8_t>>();
  for (int x = 0; x < 112; ++x) {
    columns->push_back(make_tap(random, 56));
    append_corners(random, *weights);
  }
  return {.amount = 2 * 112 * 64, .unit = "elements", .run = [&kernel, src, dst, columns, weights] {
            const std::array<const std::uint8_t*, 2> corners = {weights->data(), weights->data()};
            kernel.function({.top = src->data(),
                             .bottom = src->data() + 56 * 64,
                             .columns = columns->data(),
                             .pixel_count = 112,
                             .rows = columns->data(),
                             .corners = corners.data(),
                             .row_count = 2,
                             .channels = 64,
                             .dst = dst->data()});
          }};
}

}  // namespace

void append_resize(std::vector<Subject>& subjects) {
  append_rows(subjects, resize_kernels(), check, bench);
}

}  // namespace qpp::check
