// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kTileGroup = 8;  // tiles whose V lies together
constexpr int kFilters = 8;
constexpr int kGroup = 4;  // tiles in turn: as many as cover the two cycles that a sum takes
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

/// One channel of a group of tiles times eight filters.
template <int kLane>
QPP_NEON_INLINE void accumulate(float16x8_t* sums, const float16x8_t (&v)[kGroup],
                                const float16x8_t (&u)[8]) {
#pragma GCC unroll 4
  for (int t = 0; t < kGroup; ++t) multiply_add<kLane>(sums[t], u[kLane], v[t]);
}

/// What is left to read of V and U of one point and group of tiles.
struct Sources {
  const half* v;
  const half* u;
};

/// The sums over `channels`, one chain in fp16.
template <int kTiles>
QPP_NEON_INLINE void add_chain(float16x8_t (&sums)[kTiles], Sources& sources,
                               std::int64_t channels) {
#pragma GCC unroll 8
  for (float16x8_t& sum : sums) sum = zero();
  for (std::int64_t c = 0; c < channels; c += 8) {
    float16x8_t u[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) u[k] = load(sources.u + k * kFilters);
#pragma GCC unroll 2
    for (int first = 0; first < kTiles; first += kGroup) {
      float16x8_t v[kGroup];
#pragma GCC unroll 4
      for (int t = 0; t < kGroup; ++t) v[t] = load(sources.v + (first + t) * 8);
      accumulate<0>(sums + first, v, u);
      accumulate<1>(sums + first, v, u);
      accumulate<2>(sums + first, v, u);
      accumulate<3>(sums + first, v, u);
      accumulate<4>(sums + first, v, u);
      accumulate<5>(sums + first, v, u);
      accumulate<6>(sums + first, v, u);
      accumulate<7>(sums + first, v, u);
    }
    sources.v += kTileGroup * 8;
    sources.u += kFilters * 8;
  }
}

/// The sums over at most kSpan channels, chains added up in fp16.
template <int kTiles>
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
template <int kTiles>
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

/// M of kTiles tiles at one point.
template <int kTiles>
QPP_NEON_INLINE void multiply(const half* v, const half* u, std::int64_t channels, half* m) {
  Sources sources{v, u};
  float16x8_t sums[kTiles];
  if (channels <= kSpan) {
    add_span(sums, sources, channels);
  } else {
    add_spans(sums, sources, channels);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) store(m + t * kFilters, sums[t]);
}

}  // namespace

// m[point, tile, f] = sum over c of v[point, tile, c] * u[point, c, f], eight filters
//
// v, u, m        fp16, winograd_v_index(), [point][c][f % 8], winograd_m_index()
// preconditions  channels % 8 == 0; no over-read
// registers      8 for the sums, 8 for the sums of chains, 8 for u of 8 channels, 4 for v of 4
// tiles,
//                which must be among v0 .. v15; the fp32 totals are in memory
// loop budget    8 channels: 16 loads, 64 FMLA (512 MACs), bound by both vector pipes: 32 cycles on
//                A76. Every 32 channels 8 FADD, at the end 8 stores, 4 cycles each
// choices        modelled A76, 64 channels: 264 cycles, 97 % of peak. One chain of 64 products
// would
//                save 4 of them, but its rms error is 5.6e-3 instead of 4.1e-3
void winograd4_multiply_f16_f16_f16_8x8_neon_fp16(const WinogradMultiplyArgs& args) {
  const half* v = static_cast<const half*>(args.v);
  const half* u = static_cast<const half*>(args.u);
  half* m = static_cast<half*>(args.m);
  for (int point = 0; point < kWinogradPoints; ++point) {
    std::int64_t tile = 0;
    for (; tile + 4 < args.tiles; tile += 8) {
      multiply<8>(v + tile * args.channels, u, args.channels, m + tile * kFilters);
    }
    if (tile < args.tiles)
      multiply<4>(v + tile * args.channels, u, args.channels, m + tile * kFilters);
    v += winograd_v_point_stride(args.block_tiles, args.channels);
    u += args.channels * kFilters;
    m += winograd_m_index(1, 0, 0);
  }
}

}  // namespace qpp
