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

void draw(Random& random, int extreme, std::int8_t& value) {
  value = extreme != 0 ? static_cast<std::int8_t>(extreme)
                       : static_cast<std::int8_t>(random.integer(-128, 127));
}

void draw(Random& random, int extreme, half& value) {
  value = half{static_cast<std::uint16_t>(random.bits())};
  if (extreme > 0) value = to_half(random.uniform(-1, 1));
  if (extreme < 0) value = half{static_cast<std::uint16_t>(random.bits() & 0x8000U)};  // zeros
}

template <typename Src, typename Dst>
void check_case(const PoolKernel& kernel, PoolKernel::Function reference, Trial& trial,
                const Windows& windows, int extreme) {
  trial.begin(std::to_string(windows.rows) + "x" + std::to_string(windows.width) + ", stride " +
              std::to_string(windows.stride) + ", " + std::to_string(windows.channels) +
              " channels, " + std::to_string(windows.pixels) + " pixels");
  const std::int64_t columns = (windows.pixels - 1) * windows.stride + windows.width;
  std::vector<std::unique_ptr<Guarded<Src>>> sources;
  std::vector<const void*> rows;
  for (std::int64_t r = 0; r < windows.rows; ++r) {
    sources.push_back(std::make_unique<Guarded<Src>>(columns * windows.channels));
    for (std::int64_t i = 0; i < sources.back()->count(); ++i)
      draw(trial.random, extreme, (*sources.back())[i]);
    rows.push_back(sources.back()->data());
  }
  const std::int64_t count = windows.pixels * windows.channels;
  const Destination<Dst> dst(1, count, count);
  const Guarded<Dst> expected(count);
  PoolArgs args{.rows = rows.data(),
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
  args.dst = expected.data();
  reference(args);
  args.dst = dst.data();
  kernel.function(args);
  for (std::int64_t i = 0; i < count; ++i) {
    if (!same(dst.at(0, i), expected[i])) {
      trial.fail("element " + std::to_string(i) + " is " + text(dst.at(0, i)) + ", expected " +
                 text(expected[i]));
    }
  }
  dst.check_rest(1, trial);
}

template <typename Src, typename Dst>
void check_all(const PoolKernel& kernel, PoolKernel::Function reference, Trial& trial) {
  for (const Windows& windows : kWindows) {
    for (const int extreme : {0, 127, -128})
      check_case<Src, Dst>(kernel, reference, trial, windows, extreme);
  }
}

void check(const PoolKernel& kernel, PoolKernel::Function reference, Trial& trial) {
  if (kernel.src == DType::f16) return check_all<half, half>(kernel, reference, trial);
  if (kernel.dst == DType::f16) return check_all<std::int8_t, half>(kernel, reference, trial);
  return check_all<std::int8_t, std::int8_t>(kernel, reference, trial);
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

void append(std::vector<Subject>& subjects, const std::vector<PoolKernel>& kernels) {
  for (const PoolKernel& kernel : kernels) {
    const auto reference = std::find_if(kernels.begin(), kernels.end(), [&](const auto& other) {
      return other.dst == kernel.dst && other.src == kernel.src;
    });
    subjects.push_back(
        {.info = kernel.info,
         .check = [&kernel, reference](Trial& trial) { check(kernel, reference->function, trial); },
         .bench = [&kernel] { return bench(kernel); }});
  }
}

}  // namespace

void append_pool(std::vector<Subject>& subjects) {
  append(subjects, maxpool_kernels());
  append(subjects, avgpool_kernels());
}

}  // namespace qpp::check
