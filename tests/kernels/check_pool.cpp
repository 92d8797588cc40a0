// SPDX-License-Identifier: Apache-2.0
//
// Maxima and means of windows, exactly.

#include "checkkernels.h"
#include "kernels/select.h"

namespace qpp::check {
namespace {

struct Windows {
  std::int64_t rows;
  std::int64_t width;
  std::int64_t stride;
  std::int64_t channels;
  std::int64_t pixels;
};

const std::vector<Windows> kWindows = {
    {3, 3, 2, 64, 7}, {3, 3, 2, 8, 1},   {3, 3, 2, 24, 2},  {3, 3, 1, 16, 5},  {3, 3, 1, 40, 1},
    {2, 2, 2, 16, 4}, {3, 2, 2, 24, 1},  {2, 3, 2, 8, 3},   {1, 1, 1, 8, 1},   {3, 3, 3, 16, 3},
    {5, 5, 1, 32, 3}, {7, 7, 1, 512, 1}, {1, 600, 1, 8, 1}, {2, 300, 7, 24, 2}};

template <typename Src, typename Dst>
void check_case(const std::vector<PoolKernel>& family, const PoolKernel& kernel, Trial& trial,
                const Windows& windows, Values values) {
  trial.begin(std::to_string(windows.rows) + "x" + std::to_string(windows.width) + ", stride " +
              std::to_string(windows.stride) + ", " + std::to_string(windows.channels) +
              " channels, " + std::to_string(windows.pixels) + " pixels");
  const std::int64_t columns = (windows.pixels - 1) * windows.stride + windows.width;
  const GuardedRows<Src> rows(windows.rows, columns * windows.channels);
  for (const Guarded<Src>& row : rows) draw(trial.random, values, row);
  const std::int64_t count = windows.pixels * windows.channels;
  PoolArgs args{.rows = rows.pointers(),
                .row_count = windows.rows,
                .width = windows.width,
                .stride = windows.stride,
                .channels = windows.channels,
                .pixel_count = windows.pixels};
  args.zero_point = static_cast<std::int32_t>(trial.random.integer(-128, 127));
  args.correction =
      static_cast<std::int32_t>(trial.random.integer(-128, 127) * windows.rows * windows.width);
  args.multiplier =
      trial.random.uniform(0.5F, 1.5F) / static_cast<float>(windows.rows * windows.width);
  args.lo = static_cast<float>(-128 - args.zero_point);
  args.hi = static_cast<float>(127 - args.zero_point);
  const Destination<Dst> dst(1, count, count);
  check_against_reference(family, kernel, args, dst, trial);
}

void check(const std::vector<PoolKernel>& family, const PoolKernel& kernel, Trial& trial) {
  for (const Windows& windows : kWindows) {
    for (const Values values : {Values::random, Values::patterns, Values::zeros, Values::lowest,
                                Values::highest, Values::extreme}) {
      with_types(kernel, [&](auto src, auto dst) {
        check_case<decltype(src), decltype(dst)>(family, kernel, trial, windows, values);
      });
    }
  }
}

/// A row of 56 windows of 3x3 pixels and 64 channels, stride 2.
Bench bench(const PoolKernel& kernel) {
  const auto src = std::make_shared<AlignedVector<half>>(3 * 113 * 64);
  const auto dst = std::make_shared<AlignedVector<half>>(56 * 64);
  return {.amount = 56 * 64, .unit = "elements", .run = [&kernel, src, dst] {
            const std::array<const void*, 3> rows = {src->data(), src->data() + 113 * 64,
                                                     src->data() + 2 * 113 * 64};
            kernel.function({.rows = rows.data(),
                             .row_count = 3,
                             .width = 3,
                             .stride = 2,
                             .channels = 64,
                             .pixel_count = 56,
                             .dst = dst->data()});
          }};
}

}  // namespace

void append_pool(std::vector<Subject>& subjects) {
  for (const auto* family : {&maxpool_kernels(), &avgpool_kernels()}) {
    append_rows(
        subjects, *family,
        [family](const PoolKernel& kernel, Trial& trial) { check(*family, kernel, trial); }, bench);
  }
}

}  // namespace qpp::check
