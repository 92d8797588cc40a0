// SPDX-License-Identifier: Apache-2.0
//
// Shared by the checks of all kernel families. checkkernels.cpp runs them.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "operands.h"

namespace qpp::check {

/// One check of one kernel: where cases report to.
class Trial {
 public:
  Trial(const char* name, std::uint64_t seed) : random(seed), name_(name), seed_(seed) {}

  /// Names the case that follows.
  void begin(const std::string& shape) {
    case_ = std::string(name_) + ": " + shape + " (seed " + std::to_string(seed_) + ")";
    ++cases_;
  }
  /// Only the first failure of a trial is kept.
  void fail(const std::string& what) {
    if (!failed()) failure_ = case_ + ": " + what;
  }
  [[nodiscard]] bool failed() const { return !failure_.empty(); }
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] const std::string& current() const { return case_; }
  [[nodiscard]] std::int64_t cases() const { return cases_; }
  /// Counts the cases with a property, so that a check can ensure that they occurred.
  void note(const std::string& what) { ++notes_[what]; }
  [[nodiscard]] std::int64_t notes(const std::string& what) const {
    const auto found = notes_.find(what);
    return found == notes_.end() ? 0 : found->second;
  }

  Random random;

 private:
  const char* name_;
  std::uint64_t seed_;
  std::string case_;
  std::string failure_;
  std::int64_t cases_ = 0;
  std::map<std::string, std::int64_t> notes_;
};

/// The same bits, or both NaN.
bool same(half a, half b);
/// Equal values, zeros of any sign, or both NaN.
bool same(float a, float b);
inline bool same(std::int8_t a, std::int8_t b) { return a == b; }
inline bool same(std::int16_t a, std::int16_t b) { return a == b; }

std::string text(float value);
inline std::string text(half value) { return text(to_float(value)); }
inline std::string text(std::int8_t value) { return std::to_string(value); }
inline std::string text(std::int16_t value) { return std::to_string(value); }

/// A destination: rows of `width` elements, `stride` apart, amid memory that must stay as it is.
template <typename T>
class Destination {
 public:
  Destination(std::int64_t rows, std::int64_t width, std::int64_t stride)
      : width_(width), stride_(stride), memory_(kMargin + rows * stride + kMargin) {
    std::fill_n(memory_.data(), memory_.count(), canary());
  }
  [[nodiscard]] T* data() const { return memory_.data() + kMargin; }
  [[nodiscard]] std::int64_t width() const { return width_; }
  [[nodiscard]] T at(std::int64_t row, std::int64_t column) const {
    return data()[row * stride_ + column];
  }
  /// Fails where an element has changed that inside(row, column) does not claim.
  template <typename Inside>
  void check_outside(const Inside& inside, Trial& trial) const {
    for (std::int64_t i = -kMargin; i < memory_.count() - kMargin; ++i) {
      const bool expected = i >= 0 && inside(i / stride_, i % stride_);
      if (!expected && !same(data()[i], canary())) trial.fail("wrote at dst " + std::to_string(i));
    }
  }
  /// Fails where an element outside of the first `rows` rows has changed.
  void check_rest(std::int64_t rows, Trial& trial) const {
    check_outside(
        [&](std::int64_t row, std::int64_t column) { return row < rows && column < width_; },
        trial);
  }

 private:
  static constexpr std::int64_t kMargin = 64;
  static T canary() {
    std::array<std::uint8_t, sizeof(T)> bytes{};
    bytes.fill(0xa5);
    return std::bit_cast<T>(bytes);
  }

  std::int64_t width_;
  std::int64_t stride_;
  Guarded<T> memory_;
};

/// The work of one iteration of a bench.
struct Bench {
  std::int64_t amount = 0;
  const char* unit = "";  // "macs" or "elements"
  std::function<void()> run;
};

/// A row of variants.inc, or a formula that all rows share, as checkkernels sees it.
struct Subject {
  KernelInfo info;
  std::function<void(Trial&)> check;
  std::function<Bench()> bench;  // none for formulas
};

/// Appends all rows of a family with check(row, trial) and bench(row).
template <typename Row, typename Check, typename MakeBench>
void append_rows(std::vector<Subject>& subjects, const std::vector<Row>& rows, const Check& check,
                 const MakeBench& bench) {
  for (const Row& row : rows) {
    subjects.push_back({.info = row.info,
                        .check = [&row, check](Trial& trial) { check(row, trial); },
                        .bench = [&row, bench] { return bench(row); }});
  }
}

/// Calls check(src, dst) with values of the C++ types of a row.
template <typename Row, typename Check>
void with_types(const Row& row, const Check& check) {
  if (row.src == DType::f16) return check(half{}, half{});
  if (row.dst == DType::f16) return check(std::int8_t{}, half{});
  return check(std::int8_t{}, std::int8_t{});
}

/// Fails unless element `i` of the first row of `dst` is as expected.
template <typename T>
void check_element(const Destination<T>& dst, std::int64_t i, T expected, Trial& trial) {
  if (same(dst.at(0, i), expected)) return;
  trial.fail("element " + std::to_string(i) + " is " + text(dst.at(0, i)) + ", expected " +
             text(expected));
}

/// Runs a kernel, and the reference of its types, the first such row of `family`, on the same
/// arguments. Fails unless both write the same elements and nothing else. `dst` has one row.
template <typename Dst, typename Row, typename Args>
void check_against_reference(const std::vector<Row>& family, const Row& kernel, Args args,
                             const Destination<Dst>& dst, Trial& trial) {
  const auto reference = std::find_if(family.begin(), family.end(), [&](const Row& row) {
    return row.dst == kernel.dst && row.src == kernel.src;
  });
  const Guarded<Dst> expected(dst.width());
  args.dst = expected.data();
  reference->function(args);
  args.dst = dst.data();
  kernel.function(args);
  for (std::int64_t i = 0; i < dst.width(); ++i) check_element(dst, i, expected[i], trial);
  dst.check_rest(1, trial);
}

void append_output_stage(std::vector<Subject>& subjects);
void append_conv(std::vector<Subject>& subjects);
void append_quantize(std::vector<Subject>& subjects);
void append_statistics(std::vector<Subject>& subjects);
void append_winograd(std::vector<Subject>& subjects);
void append_elementwise(std::vector<Subject>& subjects);
void append_depthwise(std::vector<Subject>& subjects);
void append_activation(std::vector<Subject>& subjects);
void append_pool(std::vector<Subject>& subjects);
void append_resize(std::vector<Subject>& subjects);
void append_sparse(std::vector<Subject>& subjects);

}  // namespace qpp::check
