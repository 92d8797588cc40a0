// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool.h"

#include "kernels/variants.h"

namespace qpp {
namespace {

std::int8_t larger(std::int8_t a, std::int8_t b) { return a < b ? b : a; }

/// NaN if there is one; of two zeros the positive one.
half larger(half a, half b) {
  const float x = to_float(a);
  const float y = to_float(b);
  if (x == y) return {static_cast<std::uint16_t>(a.bits & b.bits)};
  return x > y || std::isnan(x) ? a : b;
}

/// Calls `visit(element)` for a window, column by column.
template <typename T, typename Visit>
void for_window(const PoolArgs& args, std::int64_t pixel, std::int64_t channel,
                const Visit& visit) {
  for (std::int64_t k = 0; k < args.width; ++k) {
    const std::int64_t at = (pixel * args.stride + k) * args.channels + channel;
    for (std::int64_t r = 0; r < args.row_count; ++r)
      visit(static_cast<const T*>(args.rows[r])[at]);
  }
}

template <typename T>
void max_pool(const PoolArgs& args) {
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      T largest = static_cast<const T*>(args.rows[0])[p * args.stride * args.channels + c];
      for_window<T>(args, p, c, [&](T value) { largest = larger(largest, value); });
      static_cast<T*>(args.dst)[p * args.channels + c] = largest;
    }
  }
}

template <typename Store>
void avg_pool_int8(const PoolArgs& args, const Store& store) {
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      std::int32_t sum = args.correction;
      for_window<std::int8_t>(args, p, c, [&](std::int8_t value) { sum += value; });
      store(p * args.channels + c, static_cast<float>(sum) * args.multiplier);
    }
  }
}

}  // namespace

void maxpool_qai8_qai8_ref(const PoolArgs& args) { max_pool<std::int8_t>(args); }

void maxpool_f16_f16_ref(const PoolArgs& args) { max_pool<half>(args); }

void avgpool_f16_f16_ref(const PoolArgs& args) {
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    for (std::int64_t c = 0; c < args.channels; ++c) {
      float sum = 0;
      for_window<half>(args, p, c, [&](half value) { sum += to_float(value); });
      static_cast<half*>(args.dst)[p * args.channels + c] = to_half(sum * args.multiplier);
    }
  }
}

void avgpool_f16_qai8_ref(const PoolArgs& args) {
  avg_pool_int8(
      args, [&](std::int64_t i, float value) { static_cast<half*>(args.dst)[i] = to_half(value); });
}

void avgpool_qai8_qai8_ref(const PoolArgs& args) {
  avg_pool_int8(args, [&](std::int64_t i, float level) {
    static_cast<std::int8_t*>(args.dst)[i] =
        round_to_int8(clamp_level(level, args.lo, args.hi), args.zero_point);
  });
}

}  // namespace qpp
