// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/neon/block_output.h"
#include "kernels/neon/conv_source.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kPixels = 8;
constexpr int kFilters = 8;

// What the two assembly statements below, sum_block and sum_and_store, are made of. Registers:
//
//   x8 .. x15    where the eight pixels of a run lie
//   x16, x17     how many of a run's channels are left, and the first of them
//   v0 .. v7     channels of the pixels
//   v8 .. v15    weights
//   v16 .. v23   sums of filters 0 .. 3 of the pixels
//   v24 .. v31   those of filters 4 .. 7
//
// clang-format off

#define QPP_FIND_PIXELS(pointers)       \
  "ldp x8, x9, [" pointers "]\n"        \
  "ldp x10, x11, [" pointers ", #16]\n" \
  "ldp x12, x13, [" pointers ", #32]\n" \
  "ldp x14, x15, [" pointers ", #48]\n"

#define QPP_LOAD_PIXELS(type)   \
  "ldr " type "0, [x8, x17]\n"  \
  "ldr " type "1, [x9, x17]\n"  \
  "ldr " type "2, [x10, x17]\n" \
  "ldr " type "3, [x11, x17]\n" \
  "ldr " type "4, [x12, x17]\n" \
  "ldr " type "5, [x13, x17]\n" \
  "ldr " type "6, [x14, x17]\n" \
  "ldr " type "7, [x15, x17]\n"

// Four channels of all pixels times four filters.
#define QPP_LOW(weights, lane)                      \
  "sdot v16.4s, " weights ".16b, v0.4b[" lane "]\n" \
  "sdot v17.4s, " weights ".16b, v1.4b[" lane "]\n" \
  "sdot v18.4s, " weights ".16b, v2.4b[" lane "]\n" \
  "sdot v19.4s, " weights ".16b, v3.4b[" lane "]\n" \
  "sdot v20.4s, " weights ".16b, v4.4b[" lane "]\n" \
  "sdot v21.4s, " weights ".16b, v5.4b[" lane "]\n" \
  "sdot v22.4s, " weights ".16b, v6.4b[" lane "]\n" \
  "sdot v23.4s, " weights ".16b, v7.4b[" lane "]\n"

#define QPP_HIGH(weights, lane)                     \
  "sdot v24.4s, " weights ".16b, v0.4b[" lane "]\n" \
  "sdot v25.4s, " weights ".16b, v1.4b[" lane "]\n" \
  "sdot v26.4s, " weights ".16b, v2.4b[" lane "]\n" \
  "sdot v27.4s, " weights ".16b, v3.4b[" lane "]\n" \
  "sdot v28.4s, " weights ".16b, v4.4b[" lane "]\n" \
  "sdot v29.4s, " weights ".16b, v5.4b[" lane "]\n" \
  "sdot v30.4s, " weights ".16b, v6.4b[" lane "]\n" \
  "sdot v31.4s, " weights ".16b, v7.4b[" lane "]\n"

// All runs of a block, in steps of sixteen, eight and four channels. It ends with x8 .. x15 as the
// next block needs them; where there is but one run, they stay.
#define QPP_RUNS(sixteen, eight, four) \
  "mov %[run], %[pixels]\n"            \
  "mov %[left], %[runs]\n"             \
  "1:\n"                               \
  "mov x17, #0\n"                      \
  "subs x16, %[channels], #16\n"       \
  "b.lo 3f\n"                          \
  "2:\n"                               \
  sixteen                              \
  "add x17, x17, #16\n"                \
  "subs x16, x16, #16\n"               \
  "b.hs 2b\n"                          \
  "3:\n"                               \
  "cmn x16, #16\n"                     \
  "b.eq 5f\n"                          \
  "tbz x16, #3, 4f\n"                  \
  QPP_LOAD_PIXELS("d") eight           \
  "add x17, x17, #8\n"                 \
  "4:\n"                               \
  "tbz x16, #2, 5f\n"                  \
  QPP_LOAD_PIXELS("s") four            \
  "5:\n"                               \
  "cmp %[runs], #1\n"                  \
  "b.eq 7f\n"                          \
  "subs %[left], %[left], #1\n"        \
  "b.eq 6f\n"                          \
  "add %[run], %[run], #64\n"          \
  QPP_FIND_PIXELS("%[run]")            \
  "b 1b\n"                             \
  "6:\n"                               \
  QPP_FIND_PIXELS("%[pixels]")         \
  "7:\n"

#define QPP_RUNS_8_FILTERS                                                                    \
  QPP_RUNS("ldp q8, q9, [%[weights]]\n"                                                       \
           QPP_LOAD_PIXELS("q")                                                               \
           "ldp q10, q11, [%[weights], #32]\n"                                                \
           "ldp q12, q13, [%[weights], #64]\n"                                                \
           "ldp q14, q15, [%[weights], #96]\n"                                                \
           "add %[weights], %[weights], #128\n"                                               \
           QPP_LOW("v8", "0") QPP_HIGH("v9", "0") QPP_LOW("v10", "1") QPP_HIGH("v11", "1")    \
           QPP_LOW("v12", "2") QPP_HIGH("v13", "2") QPP_LOW("v14", "3") QPP_HIGH("v15", "3"), \
           "ldp q8, q9, [%[weights]]\n"                                                       \
           "ldp q10, q11, [%[weights], #32]\n"                                                \
           "add %[weights], %[weights], #64\n"                                                \
           QPP_LOW("v8", "0") QPP_HIGH("v9", "0") QPP_LOW("v10", "1") QPP_HIGH("v11", "1"),   \
           "ldp q8, q9, [%[weights]], #32\n"                                                  \
           QPP_LOW("v8", "0") QPP_HIGH("v9", "0"))

// The weights of filters 4 .. 7 are zeros.
#define QPP_RUNS_4_FILTERS                                                                 \
  QPP_RUNS("ldr q8, [%[weights]]\n"                                                        \
           QPP_LOAD_PIXELS("q")                                                            \
           "ldr q10, [%[weights], #32]\n"                                                  \
           "ldr q12, [%[weights], #64]\n"                                                  \
           "ldr q14, [%[weights], #96]\n"                                                  \
           "add %[weights], %[weights], #128\n"                                            \
           QPP_LOW("v8", "0") QPP_LOW("v10", "1") QPP_LOW("v12", "2") QPP_LOW("v14", "3"), \
           "ldr q8, [%[weights]]\n"                                                        \
           "ldr q10, [%[weights], #32]\n"                                                  \
           "add %[weights], %[weights], #64\n"                                             \
           QPP_LOW("v8", "0") QPP_LOW("v10", "1"),                                         \
           "ldr q8, [%[weights]], #32\n"                                                   \
           QPP_LOW("v8", "0"))

// Sums start at start[f], or at start[p * 8 + f] for a step of 32.
#define QPP_START(step)                      \
  "ldp q16, q24, [%[start], 0 * " step "]\n" \
  "ldp q17, q25, [%[start], 1 * " step "]\n" \
  "ldp q18, q26, [%[start], 2 * " step "]\n" \
  "ldp q19, q27, [%[start], 3 * " step "]\n" \
  "ldp q20, q28, [%[start], 4 * " step "]\n" \
  "ldp q21, q29, [%[start], 5 * " step "]\n" \
  "ldp q22, q30, [%[start], 6 * " step "]\n" \
  "ldp q23, q31, [%[start], 7 * " step "]\n"

// Adds a sparse part, as conv.h tells for float_sums. FCVTL takes two slots of V0: four filters are
// widened without, as the bits of 2^-112 times the half.
#define QPP_ADD_SPARSE_PIXEL(low, high)        \
  "ld1 {v0.8h}, [%[sparse]], %[sparse_step]\n" \
  "fcvtl v1.4s, v0.4h\n"                       \
  "sshll2 v2.4s, v0.8h, #13\n"                 \
  "bic v2.4s, #0x70, lsl #24\n"                \
  "fmla v" low ".4s, v1.4s, v8.4s\n"           \
  "fmla v" high ".4s, v2.4s, v9.4s\n"
#define QPP_ADD_SPARSE                                              \
  "fmov v8.4s, #16.0\n"                                             \
  "movi v9.4s, #0x79, lsl #24\n"                                    \
  "orr v9.4s, #0x80, lsl #16\n" /* 2^116 */                         \
  QPP_ADD_SPARSE_PIXEL("16", "24") QPP_ADD_SPARSE_PIXEL("17", "25") \
  QPP_ADD_SPARSE_PIXEL("18", "26") QPP_ADD_SPARSE_PIXEL("19", "27") \
  QPP_ADD_SPARSE_PIXEL("20", "28") QPP_ADD_SPARSE_PIXEL("21", "29") \
  QPP_ADD_SPARSE_PIXEL("22", "30") QPP_ADD_SPARSE_PIXEL("23", "31")
static_assert(kSparseUnit == 16);

// The shorter way of output_stage.h: levels of a pixel, whose sums start anew; their low halves;
// and these as bytes.
#define QPP_LEVELS(low, high, a, b)       \
  "ldp q" a ", q" b ", [%[bias]]\n"       \
  "fmla v" a ".4s, v" low ".4s, v0.4s\n"  \
  "fmla v" b ".4s, v" high ".4s, v1.4s\n" \
  "ldp q" low ", q" high ", [%[start]]\n"
#define QPP_HALVES(a, b) "uzp1 v" a ".8h, v" a ".8h, v" b ".8h\n"
#define QPP_BYTES(a) "sqxtn v" a ".8b, v" a ".8h\n"

// Adds an int8 residual to the sums of eight pixels, output_stage.h.
#define QPP_ADD_RESIDUAL_PIXEL(r, low, high)   \
  "sshll v" r ".8h, v" r ".8b, #0\n"           \
  "smlal v" low ".4s, v" r ".4h, v0.4h\n"      \
  "smlal2 v" high ".4s, v" r ".8h, v0.8h\n"
#define QPP_ADD_RESIDUAL                                                          \
  "add x16, %[residual], %[stride], lsl #2\n"                                     \
  "ldr q0, [%[factor]], #16\n"                                                    \
  "ldr d1, [%[residual]]\n"                                                       \
  "ldr d2, [%[residual], %[stride]]\n"                                            \
  "ldr d3, [%[residual], %[stride2]]\n"                                           \
  "ldr d4, [%[residual], %[stride3]]\n"                                           \
  "ldr d5, [x16]\n"                                                               \
  "ldr d6, [x16, %[stride]]\n"                                                    \
  "ldr d7, [x16, %[stride2]]\n"                                                   \
  "ldr d8, [x16, %[stride3]]\n"                                                   \
  "add %[residual], %[residual], #8\n"                                            \
  QPP_ADD_RESIDUAL_PIXEL("1", "16", "24") QPP_ADD_RESIDUAL_PIXEL("2", "17", "25") \
  QPP_ADD_RESIDUAL_PIXEL("3", "18", "26") QPP_ADD_RESIDUAL_PIXEL("4", "19", "27") \
  QPP_ADD_RESIDUAL_PIXEL("5", "20", "28") QPP_ADD_RESIDUAL_PIXEL("6", "21", "29") \
  QPP_ADD_RESIDUAL_PIXEL("7", "22", "30") QPP_ADD_RESIDUAL_PIXEL("8", "23", "31")

#define QPP_SCRATCH                                                                           \
  "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "v0", "v1", "v2", "v3", \
      "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "cc", "memory"
#define QPP_SUMS                                                                             \
  "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", \
      "v29", "v30", "v31"

/// Where sums start: at the same for all pixels, at each one's own, or by a sparse part.
enum class Start : std::uint8_t { same, each, sparse };

/// Sums of a block. `weights` moves on to the next one.
template <bool kHalf, Start kStart, typename Runs>
QPP_NEON_INLINE void sum_block(const Runs& runs, const ConvArgs& args, std::int64_t filter,
                               const std::int32_t* start, const std::int8_t*& weights,
                               int32x4_t (&sums)[kPixels][2]) {
  const half* sparse = kStart == Start::sparse ? args.sparse + filter : nullptr;
  const std::int64_t sparse_step = args.filters * static_cast<std::int64_t>(sizeof(half));
  register int32x4_t low0 asm("v16");
  register int32x4_t high0 asm("v24");
  register int32x4_t low1 asm("v17");
  register int32x4_t high1 asm("v25");
  register int32x4_t low2 asm("v18");
  register int32x4_t high2 asm("v26");
  register int32x4_t low3 asm("v19");
  register int32x4_t high3 asm("v27");
  register int32x4_t low4 asm("v20");
  register int32x4_t high4 asm("v28");
  register int32x4_t low5 asm("v21");
  register int32x4_t high5 asm("v29");
  register int32x4_t low6 asm("v22");
  register int32x4_t high6 asm("v30");
  register int32x4_t low7 asm("v23");
  register int32x4_t high7 asm("v31");
  const void* const* run = nullptr;
  std::int64_t left = 0;
// NOLINTBEGIN(bugprone-macro-parentheses): they would end the string
#define QPP_SUM_BLOCK(text)                                                                   \
  asm volatile(QPP_FIND_PIXELS("%[pixels]") text                                              \
               : "=w"(low0), "=w"(low1), "=w"(low2), "=w"(low3), "=w"(low4), "=w"(low5),      \
                 "=w"(low6), "=w"(low7), "=w"(high0), "=w"(high1), "=w"(high2), "=w"(high3),  \
                 "=w"(high4), "=w"(high5), "=w"(high6), "=w"(high7), [weights] "+r"(weights), \
                 [sparse] "+r"(sparse), [run] "=&r"(run), [left] "=&r"(left)                  \
               : [pixels] "r"(runs.pixels()), [runs] "r"(runs.count()),                       \
                 [channels] "r"(runs.channels()), [start] "r"(start),                         \
                 [sparse_step] "r"(sparse_step)                                               \
               : QPP_SCRATCH)
  // NOLINTEND(bugprone-macro-parentheses)
  if constexpr (kHalf) {
    QPP_SUM_BLOCK(QPP_START("0") QPP_RUNS_4_FILTERS);
  } else if constexpr (kStart == Start::sparse) {
    QPP_SUM_BLOCK(QPP_START("0") QPP_ADD_SPARSE QPP_RUNS_8_FILTERS);
  } else if constexpr (kStart == Start::each) {
    QPP_SUM_BLOCK(QPP_START("32") QPP_RUNS_8_FILTERS);
  } else {
    QPP_SUM_BLOCK(QPP_START("0") QPP_RUNS_8_FILTERS);
  }
  sums[0][0] = low0;
  sums[0][1] = high0;
  sums[1][0] = low1;
  sums[1][1] = high1;
  sums[2][0] = low2;
  sums[2][1] = high2;
  sums[3][0] = low3;
  sums[3][1] = high3;
  sums[4][0] = low4;
  sums[4][1] = high4;
  sums[5][0] = low5;
  sums[5][1] = high5;
  sums[6][0] = low6;
  sums[6][1] = high6;
  sums[7][0] = low7;
  sums[7][1] = high7;
}

/// Where sum_and_store() stands; it moves on from block to block.
struct Blocks {
  const std::int8_t* weights;
  const std::int32_t* correction;
  const float* multiplier;
  const float* bias;
  const half* sparse;
  const std::byte* residual;
  const std::int16_t* residual_factor;
  std::byte* dst;
};

// What sum_and_store() stores of the levels of 8 pixels.
#define QPP_STORE_BYTES                                                                     \
  QPP_HALVES("2", "10") QPP_HALVES("3", "11")                                               \
  QPP_LEVELS("20", "28", "6", "14") QPP_LEVELS("21", "29", "7", "15")                       \
  QPP_HALVES("4", "12") QPP_HALVES("5", "13")                                               \
  QPP_LEVELS("22", "30", "8", "10") QPP_LEVELS("23", "31", "9", "11")                       \
  QPP_BYTES("2") QPP_BYTES("3") QPP_HALVES("6", "14") QPP_HALVES("7", "15")                 \
  QPP_BYTES("4") QPP_BYTES("5") QPP_HALVES("8", "10") QPP_HALVES("9", "11")                 \
  QPP_STORE_FOUR("d2", "d3", "d4", "d5", "%[dst]")                                          \
  QPP_BYTES("6") QPP_BYTES("7") QPP_BYTES("8") QPP_BYTES("9")                               \
  QPP_STORE_FOUR("d6", "d7", "d8", "d9", "x16")                                             \
  "add %[dst], %[dst], #8\n"
#define QPP_STORE_LEVELS                                                                    \
  QPP_HALVES("2", "10") QPP_HALVES("3", "11")                                               \
  QPP_LEVELS("20", "28", "6", "14") QPP_LEVELS("21", "29", "7", "15")                       \
  QPP_HALVES("4", "12") QPP_HALVES("5", "13")                                               \
  QPP_LEVELS("22", "30", "8", "10") QPP_LEVELS("23", "31", "9", "11")                       \
  QPP_STORE_FOUR("q2", "q3", "q4", "q5", "%[dst]")                                          \
  QPP_HALVES("6", "14") QPP_HALVES("7", "15") QPP_HALVES("8", "10") QPP_HALVES("9", "11")   \
  QPP_STORE_FOUR("q6", "q7", "q8", "q9", "x16")                                             \
  "add %[dst], %[dst], #16\n"
#define QPP_STORE_FOUR(a, b, c, d, to)       \
  "str " a ", [" to "]\n"                    \
  "str " b ", [" to ", %[stride]]\n"         \
  "str " c ", [" to ", %[stride2]]\n"        \
  "str " d ", [" to ", %[stride3]]\n"

/// Blocks of 8 pixels by the shorter way of output_stage.h, for int16 or for bounds that hold every
/// byte. Each sum starts anew as soon as its level is made: all loads of the output and of the next
/// block in a row would take longer than the vector pipes have work.
template <typename Dst, bool kHalf, bool kSparse, bool kResidual, typename Runs>
QPP_NEON_INLINE void sum_and_store(const Runs& runs, const ConvArgs& args, std::int64_t count,
                                   Blocks& blocks) {
  if (count == 0) return;
  const std::int64_t stride = args.dst_stride * static_cast<std::int64_t>(sizeof(Dst));
  const std::int64_t sparse_step = args.filters * static_cast<std::int64_t>(sizeof(half));
  const void* const* run = nullptr;
  std::int64_t left = 0;
#define QPP_SUM_AND_STORE(text, store)                                                          \
  asm volatile(                                                                                 \
      QPP_FIND_PIXELS("%[pixels]") QPP_START("0")                                               \
      "0:\n" text                                                                               \
      "ldp q0, q1, [%[multiplier]], #32\n"                                                      \
      "subs %[count], %[count], #1\n"                                                           \
      "add x16, %[start], #32\n"                                                                \
      "csel %[start], %[start], x16, eq\n"                                                      \
      QPP_LEVELS("16", "24", "2", "10") QPP_LEVELS("17", "25", "3", "11")                       \
      QPP_LEVELS("18", "26", "4", "12") QPP_LEVELS("19", "27", "5", "13")                       \
      "add x16, %[dst], %[stride], lsl #2\n"                                                    \
      store                                                                                     \
      "add %[bias], %[bias], #32\n"                                                             \
      "b.ne 0b\n"                                                                               \
      : [weights] "+r"(blocks.weights), [start] "+r"(blocks.correction),                        \
        [multiplier] "+r"(blocks.multiplier), [bias] "+r"(blocks.bias), [dst] "+r"(blocks.dst), \
        [sparse] "+r"(blocks.sparse), [residual] "+r"(blocks.residual),                         \
        [factor] "+r"(blocks.residual_factor), [count] "+r"(count), [run] "=&r"(run),           \
        [left] "=&r"(left)                                                                      \
      : [pixels] "r"(runs.pixels()), [runs] "r"(runs.count()), [channels] "r"(runs.channels()), \
        [stride] "r"(stride), [stride2] "r"(2 * stride), [stride3] "r"(3 * stride),             \
        [sparse_step] "r"(sparse_step)                                                          \
      : QPP_SCRATCH, QPP_SUMS)
#define QPP_ADD_NEXT_SPARSE                                \
  QPP_ADD_SPARSE                                           \
  "sub %[sparse], %[sparse], %[sparse_step], lsl #3\n"     \
  "add %[sparse], %[sparse], #16\n"
  constexpr bool kBytes = sizeof(Dst) == 1;
  if constexpr (kHalf && kResidual) {
    QPP_SUM_AND_STORE(QPP_RUNS_4_FILTERS QPP_ADD_RESIDUAL, QPP_STORE_BYTES);
  } else if constexpr (kResidual) {
    QPP_SUM_AND_STORE(QPP_RUNS_8_FILTERS QPP_ADD_RESIDUAL, QPP_STORE_BYTES);
  } else if constexpr (kHalf && kBytes) {
    QPP_SUM_AND_STORE(QPP_RUNS_4_FILTERS, QPP_STORE_BYTES);
  } else if constexpr (kHalf) {
    QPP_SUM_AND_STORE(QPP_RUNS_4_FILTERS, QPP_STORE_LEVELS);
  } else if constexpr (kSparse && kBytes) {
    QPP_SUM_AND_STORE(QPP_ADD_NEXT_SPARSE QPP_RUNS_8_FILTERS, QPP_STORE_BYTES);
  } else if constexpr (kSparse) {
    QPP_SUM_AND_STORE(QPP_ADD_NEXT_SPARSE QPP_RUNS_8_FILTERS, QPP_STORE_LEVELS);
  } else if constexpr (kBytes) {
    QPP_SUM_AND_STORE(QPP_RUNS_8_FILTERS, QPP_STORE_BYTES);
  } else {
    QPP_SUM_AND_STORE(QPP_RUNS_8_FILTERS, QPP_STORE_LEVELS);
  }
  blocks.correction += kFilters;
}

// clang-format on

/// Where the sums of a block start if there is a sparse part, conv.h, for the rarer cases.
QPP_NEON_INLINE void start_each(const ConvArgs& args, std::int64_t filter,
                                std::int32_t (&starts)[kPixels][kFilters]) {
  const std::int32_t* correction = args.output->correction + filter;
  const int32x4_t low = vld1q_s32(correction);
  const int32x4_t high = vld1q_s32(correction + 4);
  const float32x4_t unit = vdupq_n_f32(kSparseUnit);
  for (std::int64_t p = 0; p < args.pixel_count; ++p) {
    const Float8 wide = widen(load(args.sparse + p * args.filters + filter));
    int32x4_t start[2];
    if (args.output->float_sums) {
      start[0] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(low), wide.low, unit));
      start[1] = vreinterpretq_s32_f32(vfmaq_f32(vreinterpretq_f32_s32(high), wide.high, unit));
    } else {
      start[0] = vaddq_s32(low, vcvtnq_s32_f32(vmulq_f32(wide.low, unit)));
      start[1] = vaddq_s32(high, vcvtnq_s32_f32(vmulq_f32(wide.high, unit)));
    }
    vst1q_s32(starts[p], start[0]);
    vst1q_s32(starts[p] + 4, start[1]);
  }
}

/// Adds the products of four channels, which lane kLane holds.
template <int kLane>
QPP_NEON_INLINE void add_quad(int32x4_t (&sums)[2], int8x16_t channels,
                              const std::int8_t*& weights) {
  sums[0] = vdotq_laneq_s32(sums[0], vld1q_s8(weights), channels, kLane);
  sums[1] = vdotq_laneq_s32(sums[1], vld1q_s8(weights + 16), channels, kLane);
  weights += 4 * kFilters;
}

/// Adds the products of the first pixel. `weights` moves on to the next block.
QPP_NEON_INLINE void add_pixel(const PointerRuns<kPixels>& runs, const std::int8_t*& weights,
                               int32x4_t (&sums)[2]) {
  for (std::int64_t run = 0; run < runs.count(); ++run) {
    const auto* src = static_cast<const std::int8_t*>(runs.pixels()[run * kPixels]);
    std::int64_t c = 0;
    for (; c + 16 <= runs.channels(); c += 16) {
      const int8x16_t channels = vld1q_s8(src + c);
      add_quad<0>(sums, channels, weights);
      add_quad<1>(sums, channels, weights);
      add_quad<2>(sums, channels, weights);
      add_quad<3>(sums, channels, weights);
    }
    for (; c < runs.channels(); c += 4) {
      std::int32_t quad = 0;
      std::memcpy(&quad, src + c, sizeof quad);
      add_quad<0>(sums, vreinterpretq_s8_s32(vdupq_n_s32(quad)), weights);
    }
  }
}

/// Stores the sums of a block.
template <int kCount, typename Output>
QPP_NEON_INLINE void store_sums(Output& output, std::int64_t filter,
                                const int32x4_t (&sums)[kCount][2]) {
  if (output.stage().float_sums) {
    output.store_float_sums(filter, [&sums](int p) {
      return Float8{vreinterpretq_f32_s32(sums[p][0]), vreinterpretq_f32_s32(sums[p][1])};
    });
  } else {
    output.store_block(filter, [&sums](int p) {
      return Float8{vcvtq_f32_s32(sums[p][0]), vcvtq_f32_s32(sums[p][1])};
    });
  }
}

// dst[p, f] = output(correction[f] + sum over tap, c of src[p, tap][c] * weights[f][tap][c])
//
// src            int8 NHWC; a pixel of `channels` elements per tap, found as conv_source.h tells
// weights        int8, (f, tap, c) at [f / 8][tap][c / 4][f % 8][c % 4]
// dst            int8, int16 or fp16, (p, f) at p * dst_stride + f
// preconditions  channels % 4 == 0, filters % 8 == 0, output->correction is there; no over-read
// registers      as above; four empty filters get no SDOT
// loop budget    16 channels: 16 loads, 64 SDOT (1024 MACs), bound by both vector pipes: 32 cycles
//                on A76. Output of a block as int8, the shorter way: 40 slots of the vector pipes
//                (16 FMLA, 8 UZP1, 8 SQXTN, which V1 alone takes, 8 stores): 20 cycles, and with
//                the next block's start 42 loads: 21 cycles. Bounds other than those of a byte
//                take 4 cycles more, an int8 residual 15 (8 loads, 8 SSHLL, 16 SMLAL on V0 alone)
// choices        assembly, since GCC 12 adds two to four register moves to 64 SDOTs and loads the
//                next block's start too late. Modelled A76: 64 products take 152 cycles a block, 84
//                % of peak, 576 take 1190, 97 %
template <typename Dst, template <int> typename Runs, bool kResidual>
QPP_NEON_INLINE void conv_8x8(const ConvArgs& args) {
  constexpr std::int64_t kHalfBlock = kFilters / 2;
  const Runs<kPixels> runs(args);
  const OutputStage& stage = *args.output;
  const auto* weights = static_cast<const std::int8_t*>(args.weights);
  const bool has_half = args.empty_filters >= kHalfBlock;

  if constexpr (kResidual ? std::is_same_v<Dst, std::int8_t> : !std::is_same_v<Dst, half>) {
    const bool all_levels =
        sizeof(Dst) > 1 || (stage.lo <= INT8_MIN && stage.hi >= INT8_MAX);  // none is cut
    const bool one_addend = !kResidual || args.sparse == nullptr;
    if (stage.float_sums && all_levels && args.pixel_count == kPixels && one_addend) {
      Blocks blocks{.weights = weights,
                    .correction = stage.correction,
                    .multiplier = stage.multiplier,
                    .bias = stage.bias,
                    .sparse = args.sparse,
                    .residual = static_cast<const std::byte*>(args.residual),
                    .residual_factor = stage.residual.factor,
                    .dst = static_cast<std::byte*>(args.dst)};
      if constexpr (!kResidual) {
        if (args.sparse != nullptr) {
          sum_and_store<Dst, false, true, false>(runs, args, args.filters / kFilters, blocks);
          return;
        }
      }
      const std::int64_t whole = args.filters / kFilters - (has_half ? 1 : 0);
      sum_and_store<Dst, false, false, kResidual>(runs, args, whole, blocks);
      if (has_half) sum_and_store<Dst, true, false, kResidual>(runs, args, 1, blocks);
      return;
    }
  }

  BlockOutput<Dst, kResidual> output(args);
  const bool quick_sparse = stage.float_sums && args.pixel_count == kPixels;
  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    const std::int32_t* start = stage.correction + filter;
    int32x4_t sums[kPixels][2];
    if (args.sparse != nullptr && quick_sparse) {
      sum_block<false, Start::sparse>(runs, args, filter, start, weights, sums);
    } else if (args.sparse != nullptr) {
      std::int32_t starts[kPixels][kFilters] = {};
      start_each(args, filter, starts);
      sum_block<false, Start::each>(runs, args, filter, starts[0], weights, sums);
    } else if (has_half && filter + kFilters == args.filters) {
      sum_block<true, Start::same>(runs, args, filter, start, weights, sums);
    } else {
      sum_block<false, Start::same>(runs, args, filter, start, weights, sums);
    }

    store_sums(output, filter, sums);
  }
  output.finish();
}

/// Not inlined: registers of the plain convolution would be allotted differently beside it.
template <typename Dst, template <int> typename Runs>
[[gnu::noinline]] void conv_8x8_residual(const ConvArgs& args) {
  conv_8x8<Dst, Runs, true>(args);
}

template <typename Dst, template <int> typename Runs>
QPP_NEON_INLINE void conv_8x8(const ConvArgs& args) {
  if (args.residual != nullptr) return conv_8x8_residual<Dst, Runs>(args);
  conv_8x8<Dst, Runs, false>(args);
}

// The same of a single pixel, as in a linear layer, in place of a tile that repeats it.
//
// loop budget    16 channels: 9 loads, 8 SDOT in two chains (128 MACs): 4.5 cycles, in which memory
//                brings a sixth of the 128 bytes of weights
template <typename Dst, bool kResidual>
[[gnu::noinline]] void conv_1x8(const ConvArgs& args) {
  const PointerRuns<kPixels> runs(args);
  const auto* weights = static_cast<const std::int8_t*>(args.weights);
  BlockOutput<Dst, kResidual, 1> output(args);
  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    std::int32_t starts[kPixels][kFilters];
    if (args.sparse != nullptr) start_each(args, filter, starts);
    const std::int32_t* start =
        args.sparse != nullptr ? starts[0] : args.output->correction + filter;
    int32x4_t sums[1][2] = {{vld1q_s32(start), vld1q_s32(start + 4)}};
    add_pixel(runs, weights, sums[0]);
    store_sums(output, filter, sums);
  }
  output.finish();
}

/// Family conv.
template <typename Dst>
QPP_NEON_INLINE void conv(const ConvArgs& args) {
  if (args.pixel_count > 1) return conv_8x8<Dst, PointerRuns>(args);
  if (args.residual != nullptr) return conv_1x8<Dst, true>(args);
  conv_1x8<Dst, false>(args);
}

}  // namespace

void conv_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<std::int8_t>(args); }
void conv_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<half>(args); }
void conv_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) { conv<std::int16_t>(args); }
void conv3x3s1_qai16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int16_t, Interior3x3Runs>(args);
}
void conv3x3s1_qai8_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<std::int8_t, Interior3x3Runs>(args);
}
void conv3x3s1_f16_qai8_qsi8cx_8x8_neon_dotprod(const ConvArgs& args) {
  conv_8x8<half, Interior3x3Runs>(args);
}

}  // namespace qpp
