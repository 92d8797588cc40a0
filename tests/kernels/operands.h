// SPDX-License-Identifier: Apache-2.0
//
// The operands of kernels: random and worst-case elements, in memory that ends at a guard page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/align.h"
#include "base/half.h"

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

/// How elements are drawn.
enum class Values : std::uint8_t {
  random,    // int8: the whole range; halves: [-1, 1)
  patterns,  // int8: the whole range; halves: all bit patterns, among them NaN and infinity
  zeros,     // of either sign
  lowest,    // int8: -128; halves: -largest
  highest,   // int8: 127; halves: largest
  extreme,   // the lowest or the highest
};

/// Draws one element; `largest` is the magnitude of the worst halves.
void draw(Random& random, Values values, std::int8_t& element, float largest = 0);
void draw(Random& random, Values values, half& element, float largest = 3e4F);

template <typename T, typename... Largest>
void draw(Random& random, Values values, const Guarded<T>& elements, Largest... largest) {
  for (std::int64_t i = 0; i < elements.count(); ++i) draw(random, values, elements[i], largest...);
}

/// Rows of elements, each in its own guarded memory.
template <typename T>
class GuardedRows {
 public:
  GuardedRows(std::int64_t rows, std::int64_t width) {
    for (std::int64_t r = 0; r < rows; ++r) pointers_.push_back(rows_.emplace_back(width).data());
  }
  [[nodiscard]] const void* const* pointers() const { return pointers_.data(); }
  const Guarded<T>& operator[](std::int64_t r) const { return rows_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] auto begin() const { return rows_.begin(); }
  [[nodiscard]] auto end() const { return rows_.end(); }

 private:
  std::deque<Guarded<T>> rows_;
  std::vector<const void*> pointers_;
};

/// Numbers of elements for kernels that process 8, 16, 32 or 64 at a time.
inline constexpr std::int64_t kRaggedCounts[] = {8, 16, 24, 40, 72};

/// The size of most benches.
inline constexpr std::int64_t kBenchPixels = 56 * 56;
inline constexpr std::int64_t kBenchChannels = 64;
inline constexpr std::int64_t kBenchElements = kBenchPixels * kBenchChannels;

/// Random halves, uniform over [-1, 1); the inputs of benches.
std::shared_ptr<AlignedVector<half>> random_halves(std::int64_t count, std::uint64_t seed);

}  // namespace qpp::check
