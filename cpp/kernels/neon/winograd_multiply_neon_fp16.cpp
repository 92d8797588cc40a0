// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kFilters = 8;
constexpr std::int64_t kChain = 32;  // channels added up in a row in fp16
constexpr std::int64_t kSpan = 128;  // channels whose chains are added up in fp16

/// The rest of V and U of one point and group of tiles.
struct Sources {
  const half* v;
  const half* u;
};

// The loop is in assembly: FMLA by element takes the element from v0 .. v15 only, and compilers
// that keep sums there make copies. v0 .. v7 hold eight channels of a tile each, v8 .. v11 two rows
// of u in use and two on the way.

// clang-format off
#define QPP_ADD_TO_4(u, lane)                           \
  "fmla %[sum0].8h, " #u ".8h, v0.h[" #lane "]\n"       \
  "fmla %[sum1].8h, " #u ".8h, v1.h[" #lane "]\n"       \
  "fmla %[sum2].8h, " #u ".8h, v2.h[" #lane "]\n"       \
  "fmla %[sum3].8h, " #u ".8h, v3.h[" #lane "]\n"
#define QPP_ADD_TO_8(u, lane) QPP_ADD_TO_4(u, lane)     \
  "fmla %[sum4].8h, " #u ".8h, v4.h[" #lane "]\n"       \
  "fmla %[sum5].8h, " #u ".8h, v5.h[" #lane "]\n"       \
  "fmla %[sum6].8h, " #u ".8h, v6.h[" #lane "]\n"       \
  "fmla %[sum7].8h, " #u ".8h, v7.h[" #lane "]\n"
#define QPP_LOAD_4                                      \
  "ldp q0, q1, [%[v]]\n"                                \
  "ldp q2, q3, [%[v], #32]\n"
#define QPP_LOAD_8 QPP_LOAD_4                           \
  "ldp q4, q5, [%[v], #64]\n"                           \
  "ldp q6, q7, [%[v], #96]\n"
#define QPP_CLEAR_4                                     \
  "movi %[sum0].8h, #0\n"                               \
  "movi %[sum1].8h, #0\n"                               \
  "movi %[sum2].8h, #0\n"                               \
  "movi %[sum3].8h, #0\n"
#define QPP_CLEAR_8 QPP_CLEAR_4                         \
  "movi %[sum4].8h, #0\n"                               \
  "movi %[sum5].8h, #0\n"                               \
  "movi %[sum6].8h, #0\n"                               \
  "movi %[sum7].8h, #0\n"
#define QPP_CHAIN(tiles)                                \
  QPP_CLEAR_##tiles                                     \
  "1:\n"                                                \
  "ldp q8, q9, [%[u]]\n"                                \
  QPP_LOAD_##tiles                                      \
  "ldp q10, q11, [%[u], #32]\n"                         \
  QPP_ADD_TO_##tiles(v8, 0)                             \
  QPP_ADD_TO_##tiles(v9, 1)                             \
  "ldp q8, q9, [%[u], #64]\n"                           \
  QPP_ADD_TO_##tiles(v10, 2)                            \
  QPP_ADD_TO_##tiles(v11, 3)                            \
  "ldp q10, q11, [%[u], #96]\n"                         \
  QPP_ADD_TO_##tiles(v8, 4)                             \
  QPP_ADD_TO_##tiles(v9, 5)                             \
  QPP_ADD_TO_##tiles(v10, 6)                            \
  QPP_ADD_TO_##tiles(v11, 7)                            \
  "add %[u], %[u], #128\n"                              \
  "add %[v], %[v], #128\n"                              \
  "subs %[channels], %[channels], #8\n"                 \
  "b.ne 1b\n"
#define QPP_SUMS_4                                      \
  [sum0] "=&w"(sums[0]), [sum1] "=&w"(sums[1]),         \
  [sum2] "=&w"(sums[2]), [sum3] "=&w"(sums[3])
#define QPP_SUMS_8 QPP_SUMS_4,                          \
  [sum4] "=&w"(sums[4]), [sum5] "=&w"(sums[5]),         \
  [sum6] "=&w"(sums[6]), [sum7] "=&w"(sums[7])
#define QPP_MORE_SUMS_4                                 \
  [sum0] "+w"(sums[0]), [sum1] "+w"(sums[1]),           \
  [sum2] "+w"(sums[2]), [sum3] "+w"(sums[3])
#define QPP_MORE_SUMS_8 QPP_MORE_SUMS_4,                \
  [sum4] "+w"(sums[4]), [sum5] "+w"(sums[5]),           \
  [sum6] "+w"(sums[6]), [sum7] "+w"(sums[7])
#define QPP_SOURCES                                     \
  [u] "+&r"(sources.u), [v] "+&r"(sources.v), [channels] "+&r"(channels)
#define QPP_CLOBBERED                                   \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "cc", "memory"
#define QPP_ADD_PAIR(tiles, lane, next_lane)            \
  asm volatile(                                         \
    "ldp q8, q9, [%[u]]\n"                              \
    QPP_LOAD_##tiles                                    \
    "add %[u], %[u], #32\n"                             \
    QPP_ADD_TO_##tiles(v8, lane)                        \
    QPP_ADD_TO_##tiles(v9, next_lane)                   \
    : QPP_MORE_SUMS_##tiles, [u] "+&r"(sources.u)       \
    : [v] "r"(sources.v)                                \
    : QPP_CLOBBERED)
// clang-format on

/// The sums over `channels`, one chain in fp16.
QPP_NEON_INLINE void add_chain(float16x8_t (&sums)[8], Sources& sources, std::int64_t channels) {
  asm volatile(QPP_CHAIN(8) : QPP_SUMS_8, QPP_SOURCES : : QPP_CLOBBERED);
}
QPP_NEON_INLINE void add_chain(float16x8_t (&sums)[4], Sources& sources, std::int64_t channels) {
  asm volatile(QPP_CHAIN(4) : QPP_SUMS_4, QPP_SOURCES : : QPP_CLOBBERED);
}

/// Adds the last channels, fewer than eight, two at a time.
QPP_NEON_INLINE void add_rest(float16x8_t (&sums)[8], Sources sources, std::int64_t rest) {
  QPP_ADD_PAIR(8, 0, 1);
  if (rest > 2) QPP_ADD_PAIR(8, 2, 3);
  if (rest > 4) QPP_ADD_PAIR(8, 4, 5);
}
QPP_NEON_INLINE void add_rest(float16x8_t (&sums)[4], Sources sources, std::int64_t rest) {
  QPP_ADD_PAIR(4, 0, 1);
  if (rest > 2) QPP_ADD_PAIR(4, 2, 3);
  if (rest > 4) QPP_ADD_PAIR(4, 4, 5);
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
    for (int t = 0; t < kTiles; ++t) totals[t] = add(totals[t], to_float32(sums[t]));
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) sums[t] = narrow(totals[t]);
}

/// M of kTiles tiles at one point.
template <int kTiles>
QPP_NEON_INLINE void multiply(const half* v, const half* u, std::int64_t channels, half* m) {
  Sources sources{v, u};
  float16x8_t sums[kTiles];
  // Eight channels take no longer than a rest of seven.
  const std::int64_t rest = channels < 8 || channels % 8 == 7 ? 0 : channels % 8;
  const std::int64_t whole = round_up<std::int64_t>(channels - rest, 8);
  if (whole <= kSpan) {
    add_span(sums, sources, whole);
  } else {
    add_spans(sums, sources, whole);
  }
  if (rest > 0) add_rest(sums, sources, rest);
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) store(m + t * kFilters, sums[t]);
}

/// Lane kLane of halves, zeros in the others.
template <int kLane>
QPP_NEON_INLINE float16x8_t lone_half(float16x8_t halves) {
  float16x8_t alone;
  asm("dup %h0, %1.h[%2]" : "=w"(alone) : "w"(halves), "i"(kLane));
  return alone;
}
/// The same of pairs.
template <int kLane>
QPP_NEON_INLINE float16x8_t lone_pair(float16x8_t pairs) {
  float16x8_t alone;
  asm("dup %s0, %1.s[%2]" : "=w"(alone) : "w"(pairs), "i"(kLane));
  return alone;
}

/// M of eight tiles, whose lanes are yet to be added up, of one filter.
QPP_NEON_INLINE void store_lane_sums(const float16x8_t (&sums)[8][1], half* m) {
  const float16x8_t low =
      vpaddq_f16(vpaddq_f16(sums[0][0], sums[1][0]), vpaddq_f16(sums[2][0], sums[3][0]));
  const float16x8_t high =
      vpaddq_f16(vpaddq_f16(sums[4][0], sums[5][0]), vpaddq_f16(sums[6][0], sums[7][0]));
  const float16x8_t tiles = vpaddq_f16(low, high);
  store(m, lone_half<0>(tiles));
  store(m + kFilters, lone_half<1>(tiles));
  store(m + 2 * kFilters, lone_half<2>(tiles));
  store(m + 3 * kFilters, lone_half<3>(tiles));
  store(m + 4 * kFilters, lone_half<4>(tiles));
  store(m + 5 * kFilters, lone_half<5>(tiles));
  store(m + 6 * kFilters, lone_half<6>(tiles));
  store(m + 7 * kFilters, lone_half<7>(tiles));
}
/// The same of two filters.
QPP_NEON_INLINE void store_lane_sums(const float16x8_t (&sums)[8][2], half* m) {
#pragma GCC unroll 2
  for (int t = 0; t < 8; t += 4, m += 4 * kFilters) {
    const float16x8_t low =
        vpaddq_f16(vpaddq_f16(sums[t][0], sums[t][1]), vpaddq_f16(sums[t + 1][0], sums[t + 1][1]));
    const float16x8_t high = vpaddq_f16(vpaddq_f16(sums[t + 2][0], sums[t + 2][1]),
                                        vpaddq_f16(sums[t + 3][0], sums[t + 3][1]));
    const float16x8_t tiles = vpaddq_f16(low, high);
    store(m, lone_pair<0>(tiles));
    store(m + kFilters, lone_pair<1>(tiles));
    store(m + 2 * kFilters, lone_pair<2>(tiles));
    store(m + 3 * kFilters, lone_pair<3>(tiles));
  }
}

/// The kernel for kFew filters: vectors hold eight channels, and their lanes are added up at the
/// end. A function of its own, so that the loop over eight filters keeps its registers.
template <int kFew>
[[gnu::noinline]] void multiply_few_filters(const WinogradMultiplyArgs& args) {
  constexpr int kTiles = 8;
  const half* points = static_cast<const half*>(args.v);
  const half* u = static_cast<const half*>(args.u);
  half* m = static_cast<half*>(args.m);
  const std::int64_t channels = round_up<std::int64_t>(args.channels, kWinogradGroup);
  for (int point = 0; point < kWinogradPoints; ++point) {
    const half* v = points;
    for (std::int64_t tile = 0; tile < args.tiles; tile += kTiles) {
      float16x8_t sums[kTiles][kFew];
#pragma GCC unroll 8
      for (auto& sum : sums) {
#pragma GCC unroll 2
        for (float16x8_t& filter : sum) filter = vdupq_n_f16(0);
      }
      for (std::int64_t c = 0; c < channels; c += kWinogradGroup, v += kTiles * kWinogradGroup) {
#pragma GCC unroll 8
        for (int t = 0; t < kTiles; ++t) {
          const float16x8_t source = load(v + t * kWinogradGroup);
#pragma GCC unroll 2
          for (int f = 0; f < kFew; ++f) {
            sums[t][f] = vfmaq_f16(sums[t][f], source, load(u + c * kFilters + f * kFilters));
          }
        }
      }
      store_lane_sums(sums, m + tile * kFilters);
    }
    points += winograd_v_point_stride(args.block_tiles, channels);
    u += channels * kFilters;
    m += winograd_m_index(1, 0, 0);
  }
}

}  // namespace

// m[point, tile, f] = sum over c of v[point, tile, c] * u[point, c, f], eight filters
//
// v, u, m        fp16, winograd_v_index(), winograd_u_index(), winograd_m_index()
// preconditions  v is finite up to a multiple of 8 channels, where u holds zeros; no over-read
// registers      8 for the sums, 8 for the sums of chains, 8 for 8 channels of v, 4 for u; the fp32
//                totals are in memory
// loop budget    8 channels: 16 loads, 64 FMLA (512 MACs), bound by both vector pipes: 32 cycles on
//                A76. Every 32 channels 8 FADD, at the end 8 stores, 4 cycles each. One or two
//                filters: 8 or 16 FMLA every 8 channels, at the end 7 or 14 FADDP, 8 DUP, 8 stores
// choices        modelled A76, 64 channels: 268 cycles, 96 % of peak. One chain of 64 products
//                would save 4 of them, but its rms error is 5.6e-3 instead of 4.1e-3. All eight
//                sums go in turn: with four, which just cover the two cycles that a sum takes, an
//                FMLA that FADD or a store delays delays its whole chain
void winograd4_multiply_f16_f16_f16_8x8_neon_fp16(const WinogradMultiplyArgs& args) {
  const std::int64_t padded = round_up<std::int64_t>(args.channels, kWinogradGroup);
  if (winograd_few_filters(args.filters, padded)) {
    return args.filters == 1 ? multiply_few_filters<1>(args) : multiply_few_filters<2>(args);
  }
  const half* v = static_cast<const half*>(args.v);
  const half* u = static_cast<const half*>(args.u);
  half* m = static_cast<half*>(args.m);
  for (int point = 0; point < kWinogradPoints; ++point) {
    std::int64_t tile = 0;
    for (; tile + 4 < args.tiles; tile += 8) {
      multiply<8>(v + tile * padded, u, args.channels, m + tile * kFilters);
    }
    if (tile < args.tiles) multiply<4>(v + tile * padded, u, args.channels, m + tile * kFilters);
    v += winograd_v_point_stride(args.block_tiles, padded);
    u += padded * kFilters;
    m += winograd_m_index(1, 0, 0);
  }
}

}  // namespace qpp
