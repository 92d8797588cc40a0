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
#include <memory>
#include <string>
#include <vector>

#include "base/align.h"
#include "base/half.h"
#include "kernels/kernels.h"

namespace qpp::check {

/// Deterministic numbers.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 2 + 1) {}

  std::uint32_t bits() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  /// Uniform over first .. last.
  std::int64_t integer(std::int64_t first, std::int64_t last) {
    const auto count = static_cast<std::uint64_t>(last - first + 1);
    return first + static_cast<std::int64_t>((bits() * count) >> 32);
  }
  /// Uniform over [lo, hi).
  float uniform(float lo, float hi) {
    return lo + (hi - lo) * static_cast<float>(bits() >> 8) * 0x1p-24F;
  }
  /// Normal with mean 0 and variance 1, to within the accuracy of twelve uniform numbers.
  float normal() {
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform(0, 1);
    return sum;
  }

 private:
  std::uint64_t state_;
};

/// Memory that ends at a page whose access ends the program.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::size_t size);
  ~GuardedBytes();
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  std::byte* map_;
  std::size_t map_size_;
  std::byte* data_;
};

/// `count` elements, the last of which is before an inaccessible page.
template <typename T>
class Guarded {
 public:
  explicit Guarded(std::int64_t count)
      : bytes_(static_cast<std::size_t>(count) * sizeof(T)), count_(count) {}
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  [[nodiscard]] std::int64_t count() const { return count_; }
  T& operator[](std::int64_t i) const { return data()[i]; }

 private:
  GuardedBytes bytes_;
  std::int64_t count_;
};

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

/// A destination: rows of `width` elements, `stride` apart, amid memory that must stay as it is.
template <typename T>
class Destination {
 public:
  Destination(std::int64_t rows, std::int64_t width, std::int64_t stride)
      : width_(width), stride_(stride), memory_(kMargin + rows * stride + kMargin) {
    std::fill_n(memory_.data(), memory_.count(), canary());
  }
  [[nodiscard]] T* data() const { return memory_.data() + kMargin; }
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

/// Random halves, uniform over [-1, 1); the inputs of benches.
std::shared_ptr<AlignedVector<half>> random_halves(std::int64_t count, std::uint64_t seed);

std::string text(float value);
inline std::string text(half value) { return text(to_float(value)); }
inline std::string text(std::int8_t value) { return std::to_string(value); }
inline std::string text(std::int16_t value) { return std::to_string(value); }

}  // namespace qpp::check
