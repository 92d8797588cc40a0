// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kTiles = 8;
constexpr int kFilters = 8;
constexpr std::int64_t kChain = 32;  // channels added up in a row in fp16
constexpr std::int64_t kSpan = 128;  // channels whose chains are added up in fp16

/// sum += u * v[kLane]. The statement is volatile to keep the order in which the kernel takes the
/// sums in turn.
template <int kLane>
QPP_NEON_INLINE void multiply_add(float16x8_t& sum, float16x8_t u, float16x8_t v) {
  asm volatile("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum) : "w"(u), "x"(v), "i"(kLane));
}

/// MOVI, which takes no slot of the vector pipes; the compiler would copy one zero to all
/// registers.
QPP_NEON_INLINE float16x8_t zero() {
  float16x8_t value;
  asm volatile("movi %0.8h, #0" : "=w"(value));
  return value;
}

/// One channel of all tiles.
template <int kLane>
QPP_NEON_INLINE void accumulate(float16x8_t (&sums)[kTiles], const float16x8_t (&v)[kTiles],
                                const half* u) {
  const float16x8_t row = load(u + kLane * kFilters);
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) multiply_add<kLane>(sums[t], row, v[t]);
}

/// What is left to read of V and U of one point and group of tiles.
struct Sources {
  const half* v;
  const half* u;
};

/// The sums over `channels`, one chain in fp16.
QPP_NEON_INLINE void add_chain(float16x8_t (&sums)[kTiles], Sources& sources,
                               std::int64_t channels) {
#pragma GCC unroll 8
  for (float16x8_t& sum : sums) sum = zero();
  for (std::int64_t c = 0; c < channels; c += 8) {
    float16x8_t v[kTiles];
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) v[t] = load(sources.v + t * 8);
    accumulate<0>(sums, v, sources.u);
    accumulate<1>(sums, v, sources.u);
    accumulate<2>(sums, v, sources.u);
    accumulate<3>(sums, v, sources.u);
    accumulate<4>(sums, v, sources.u);
    accumulate<5>(sums, v, sources.u);
    accumulate<6>(sums, v, sources.u);
    accumulate<7>(sums, v, sources.u);
    sources.v += kTiles * 8;
    sources.u += kFilters * 8;
  }
}

/// The sums over at most kSpan channels, chains added up in fp16.
QPP_NEON_INLINE void add_span(float16x8_t (&sums)[kTiles], Sources& sources,
                              std::int64_t channels) {
  add_chain(sums, sources, channels < kChain ? channels : kChain);
  for (std::int64_t left = channels - kChain; left > 0; left -= kChain) {
    float16x8_t chain[kTiles];
    add_chain(chain, sources, left < kChain ? left : kChain);
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) sums[t] = vaddq_f16(sums[t], chain[t]);
  }
}

/// The sums over any number of channels, spans added up in fp32.
QPP_NEON_INLINE void add_spans(float16x8_t (&sums)[kTiles], Sources& sources,
                               std::int64_t channels) {
  Float8 totals[kTiles];  // in memory
#pragma GCC unroll 8
  for (Float8& total : totals) total = {vdupq_n_f32(0), vdupq_n_f32(0)};
  for (std::int64_t left = channels; left > 0; left -= kSpan) {
    add_span(sums, sources, left < kSpan ? left : kSpan);
#pragma GCC unroll 8
    for (int t = 0; t < kTiles; ++t) totals[t] = add(totals[t], widen(sums[t]));
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) sums[t] = narrow(totals[t]);
}

}  // namespace

void winograd4_multiply_f16_f16_f16_8x8_neon_fp16(const WinogradMultiplyArgs& args) {
  const half* v = static_cast<const half*>(args.v);
  const half* u = static_cast<const half*>(args.u);
  half* m = static_cast<half*>(args.m);
  for (int point = 0; point < kWinogradPoints; ++point) {
    for (std::int64_t tile = 0; tile < args.tiles; tile += kTiles) {
      Sources sources{v + tile * args.channels, u};
      float16x8_t sums[kTiles];
      if (args.channels <= kSpan) {
        add_span(sums, sources, args.channels);
      } else {
        add_spans(sums, sources, args.channels);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTiles; ++t) store(m + (tile + t) * kFilters, sums[t]);
    }
    v += args.block_tiles * args.channels;
    u += args.channels * kFilters;
    m += args.block_tiles * kFilters;
  }
}

}  // namespace qpp
