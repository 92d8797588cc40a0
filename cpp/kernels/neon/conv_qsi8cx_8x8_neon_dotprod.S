// SPDX-License-Identifier: Apache-2.0
//
// The loops of the int8 convolution, conv_qsi8cx_8x8_neon_dotprod.cpp. A block is 8 pixels times 8
// filters; a tile of 8 pixels visits all blocks of its filters:
//
//   for each block:
//     acc[p][f] = start[f]                      one of four ways to start, see below
//     for each run:                             a tap, or the three taps of a kernel row
//       pixel[p] = pixels[run * 8 + p]
//       for c in 0, 16, .. channels - 16:
//         load 16 channels of 8 pixels          v0 .. v7
//         load 16 x 8 weights                   v8 .. v15
//         for q in 0 .. 3:                      four channels, lane q of a pixel
//           for p in 0 .. 7:
//             acc[p][0 .. 3] += dot4(weights[q][0 .. 3], channels[p][q])
//           for p in 0 .. 7:
//             acc[p][4 .. 7] += dot4(weights[q][4 .. 7], channels[p][q])
//       the same for the last 8 and the last 4 channels
//     general path: return acc in v16 .. v31
//     fast path:
//       acc[p][f] += residual[p][f] * factor[f]                         optional
//       level = fma(as_float(acc[p][f]), multiplier[f], bias[f])        its low bits: an integer
//       acc[p][f] = start[f] of the next block
//       dst[p][f] = saturate(low 16 bits of level)                      int16: without saturate
//
// Registers, in both paths:
//
//   x0           weights, which are read in the order of the loops
//   x1, x2, x3   pixels, number of runs, channels of a run
//   x4           start
//   x5, x6       pixels of the current run, number of runs that are left
//   x7, x19      sparse sums and the bytes from pixel to pixel, or the residual and its factors
//   x8 .. x15    pixel[0 .. 7]
//   x16, x17     channels that are left, less 16; the first of them
//   x20, x21     multiplier, bias                                       fast path
//   x22          dst                                                    fast path
//   x23 .. x25   bytes between pixels of dst, times 1, 2 and 3          fast path
//   x26          blocks that are left                                   fast path
//   v0 .. v7     channels of the pixels
//   v8 .. v15    weights
//   v16 .. v23   acc[0 .. 7][0 .. 3]
//   v24 .. v31   acc[0 .. 7][4 .. 7]

// ------------------------------------------------------------------------------- the inner loop

.macro load_pointers table
  ldp x8, x9, [\table]
  ldp x10, x11, [\table, #16]
  ldp x12, x13, [\table, #32]
  ldp x14, x15, [\table, #48]
.endm

// 16, 8 or 4 channels: type q, d or s.
.macro load_pixels type
  ldr \type\()0, [x8, x17]
  ldr \type\()1, [x9, x17]
  ldr \type\()2, [x10, x17]
  ldr \type\()3, [x11, x17]
  ldr \type\()4, [x12, x17]
  ldr \type\()5, [x13, x17]
  ldr \type\()6, [x14, x17]
  ldr \type\()7, [x15, x17]
.endm

// Four channels of pixels 0 .. 7 times four filters, added to registers s0 .. s7.
.macro sdot_pixels weights, lane, s0, s1, s2, s3, s4, s5, s6, s7
  sdot v\s0\().4s, v\weights\().16b, v0.4b[\lane]
  sdot v\s1\().4s, v\weights\().16b, v1.4b[\lane]
  sdot v\s2\().4s, v\weights\().16b, v2.4b[\lane]
  sdot v\s3\().4s, v\weights\().16b, v3.4b[\lane]
  sdot v\s4\().4s, v\weights\().16b, v4.4b[\lane]
  sdot v\s5\().4s, v\weights\().16b, v5.4b[\lane]
  sdot v\s6\().4s, v\weights\().16b, v6.4b[\lane]
  sdot v\s7\().4s, v\weights\().16b, v7.4b[\lane]
.endm

// Filters 0 .. 3.
.macro sdot_low weights, lane
  sdot_pixels \weights, \lane, 16, 17, 18, 19, 20, 21, 22, 23
.endm

// Filters 4 .. 7.
.macro sdot_high weights, lane
  sdot_pixels \weights, \lane, 24, 25, 26, 27, 28, 29, 30, 31
.endm

.macro products_16 filters
 .if \filters == 8
  ldp q8, q9, [x0]
  load_pixels q
  ldp q10, q11, [x0, #32]
  ldp q12, q13, [x0, #64]
  ldp q14, q15, [x0, #96]
  add x0, x0, #128
  sdot_low 8, 0
  sdot_high 9, 0
  sdot_low 10, 1
  sdot_high 11, 1
  sdot_low 12, 2
  sdot_high 13, 2
  sdot_low 14, 3
  sdot_high 15, 3
 .else  // the weights of filters 4 .. 7 are zeros
  ldr q8, [x0]
  load_pixels q
  ldr q10, [x0, #32]
  ldr q12, [x0, #64]
  ldr q14, [x0, #96]
  add x0, x0, #128
  sdot_low 8, 0
  sdot_low 10, 1
  sdot_low 12, 2
  sdot_low 14, 3
 .endif
.endm

.macro products_8 filters
  load_pixels d
 .if \filters == 8
  ldp q8, q9, [x0]
  ldp q10, q11, [x0, #32]
  add x0, x0, #64
  sdot_low 8, 0
  sdot_high 9, 0
  sdot_low 10, 1
  sdot_high 11, 1
 .else
  ldr q8, [x0]
  ldr q10, [x0, #32]
  add x0, x0, #64
  sdot_low 8, 0
  sdot_low 10, 1
 .endif
.endm

.macro products_4 filters
  load_pixels s
 .if \filters == 8
  ldp q8, q9, [x0], #32
  sdot_low 8, 0
  sdot_high 9, 0
 .else
  ldr q8, [x0], #32
  sdot_low 8, 0
 .endif
.endm

// All runs of a block. Ends with the pointers of the first run; a single run keeps its own.
.macro sum_runs filters
  mov x5, x1
  mov x6, x2
1:
  mov x17, #0
  subs x16, x3, #16
  b.lo 3f
2:
  products_16 \filters
  add x17, x17, #16
  subs x16, x16, #16
  b.hs 2b
3:
  cmn x16, #16
  b.eq 5f
  tbz x16, #3, 4f
  products_8 \filters
  add x17, x17, #8
4:
  tbz x16, #2, 5f
  products_4 \filters
5:
  cmp x2, #1
  b.eq 7f
  subs x6, x6, #1
  b.eq 6f
  add x5, x5, #64
  load_pointers x5
  b 1b
6:
  load_pointers x1
7:
.endm

// ------------------------------------------------------------------------- where the sums start

// At start[f], or with a step of 32 at start[p * 8 + f].
.macro load_start step
  ldp q16, q24, [x4, #0 * \step]
  ldp q17, q25, [x4, #1 * \step]
  ldp q18, q26, [x4, #2 * \step]
  ldp q19, q27, [x4, #3 * \step]
  ldp q20, q28, [x4, #4 * \step]
  ldp q21, q29, [x4, #5 * \step]
  ldp q22, q30, [x4, #6 * \step]
  ldp q23, q31, [x4, #7 * \step]
.endm

// FCVTL takes two slots of V0: filters 4 .. 7 are converted without, as the bits of 2^-112 times the
// half.
.macro add_sparse_pixel low, high
  ld1 {v0.8h}, [x7], x19
  fcvtl v1.4s, v0.4h
  sshll2 v2.4s, v0.8h, #13
  bic v2.4s, #0x70, lsl #24
  fmla v\low\().4s, v1.4s, v8.4s
  fmla v\high\().4s, v2.4s, v9.4s
.endm

// Adds a sparse part in units of 16 (kSparseUnit), conv.h: with magic-bias accumulators only.
.macro add_sparse
  fmov v8.4s, #16.0
  movi v9.4s, #0x79, lsl #24
  orr v9.4s, #0x80, lsl #16  // 2^116
  add_sparse_pixel 16, 24
  add_sparse_pixel 17, 25
  add_sparse_pixel 18, 26
  add_sparse_pixel 19, 27
  add_sparse_pixel 20, 28
  add_sparse_pixel 21, 29
  add_sparse_pixel 22, 30
  add_sparse_pixel 23, 31
.endm

// ------------------------------------------------------------------- fast path: the output stage

.macro add_residual_pixel r, low, high
  sshll v\r\().8h, v\r\().8b, #0
  smlal v\low\().4s, v\r\().4h, v0.4h
  smlal2 v\high\().4s, v\r\().8h, v0.8h
.endm

// Adds an int8 residual, output_stage.h.
.macro add_residual
  add x16, x7, x23, lsl #2
  ldr q0, [x19], #16
  ldr d1, [x7]
  ldr d2, [x7, x23]
  ldr d3, [x7, x24]
  ldr d4, [x7, x25]
  ldr d5, [x16]
  ldr d6, [x16, x23]
  ldr d7, [x16, x24]
  ldr d8, [x16, x25]
  add x7, x7, #8
  add_residual_pixel 1, 16, 24
  add_residual_pixel 2, 17, 25
  add_residual_pixel 3, 18, 26
  add_residual_pixel 4, 19, 27
  add_residual_pixel 5, 20, 28
  add_residual_pixel 6, 21, 29
  add_residual_pixel 7, 22, 30
  add_residual_pixel 8, 23, 31
.endm

// Levels of a pixel in va and vb; its sums start again for the next block.
.macro levels low, high, a, b
  ldp q\a, q\b, [x21]
  fmla v\a\().4s, v\low\().4s, v0.4s
  fmla v\b\().4s, v\high\().4s, v1.4s
  ldp q\low, q\high, [x4]
.endm

// The low halves of the levels; as bytes.
.macro low_halves a, b
  uzp1 v\a\().8h, v\a\().8h, v\b\().8h
.endm
.macro bytes a
  sqxtn v\a\().8b, v\a\().8h
.endm

.macro store_four type, a, b, c, d, to
  str \type\a, [\to]
  str \type\b, [\to, x23]
  str \type\c, [\to, x24]
  str \type\d, [\to, x25]
.endm

// Stores a block and starts the next one. Each sum starts again as soon as its level is made: all
// loads of the output and of the next block in a row would take longer than the vector pipes have
// work.
.macro store_block dst
  ldp q0, q1, [x20], #32
  subs x26, x26, #1
  add x16, x4, #32
  csel x4, x4, x16, eq
  levels 16, 24, 2, 10
  levels 17, 25, 3, 11
  levels 18, 26, 4, 12
  levels 19, 27, 5, 13
  add x16, x22, x23, lsl #2
  low_halves 2, 10
  low_halves 3, 11
  levels 20, 28, 6, 14
  levels 21, 29, 7, 15
  low_halves 4, 12
  low_halves 5, 13
  levels 22, 30, 8, 10
  levels 23, 31, 9, 11
 .ifc \dst, qai8
  bytes 2
  bytes 3
  low_halves 6, 14
  low_halves 7, 15
  bytes 4
  bytes 5
  low_halves 8, 10
  low_halves 9, 11
  store_four d, 2, 3, 4, 5, x22
  bytes 6
  bytes 7
  bytes 8
  bytes 9
  store_four d, 6, 7, 8, 9, x16
  add x22, x22, #8
 .else
  store_four q, 2, 3, 4, 5, x22
  low_halves 6, 14
  low_halves 7, 15
  low_halves 8, 10
  low_halves 9, 11
  store_four q, 6, 7, 8, 9, x16
  add x22, x22, #16
 .endif
  add x21, x21, #32
.endm

// -------------------------------------------------------------------------------- the functions

.macro function name
  .global \name
  .hidden \name
  .type \name, %function
  .balign 64
\name:
.endm

// Offsets in struct SdotOutput of the C++ file.
.set MULTIPLIER, 0
.set BIAS, 8
.set DST, 16
.set DST_STRIDE, 24
.set ADDEND, 32
.set SPARSE_STEP, 40
.set RESIDUAL_FACTOR, 48

// The fast path: SdotFunction of the C++ file. x5 points to the SdotOutput, x6 is the number of
// blocks.
.macro fast_path name, dst, filters, addend
function \name
  stp d8, d9, [sp, #-128]!
  load_pointers x1
  load_start 0
  stp d10, d11, [sp, #16]
  stp d12, d13, [sp, #32]
  stp d14, d15, [sp, #48]
  stp x19, x20, [sp, #64]
  stp x21, x22, [sp, #80]
  stp x23, x24, [sp, #96]
  stp x25, x26, [sp, #112]
  ldp x20, x21, [x5, #MULTIPLIER]
  ldp x22, x23, [x5, #DST]
 .ifc \addend, sparse
  ldp x7, x19, [x5, #ADDEND]
 .endif
 .ifc \addend, residual
  ldr x7, [x5, #ADDEND]
  ldr x19, [x5, #RESIDUAL_FACTOR]
 .endif
  mov x26, x6
  add x24, x23, x23
  add x25, x24, x23
0:
 .ifc \addend, sparse
  add_sparse
  sub x7, x7, x19, lsl #3
  add x7, x7, #16
 .endif
  sum_runs \filters
 .ifc \addend, residual
  add_residual
 .endif
  store_block \dst
  b.ne 0b
  ldp x25, x26, [sp, #112]
  ldp x23, x24, [sp, #96]
  ldp x21, x22, [sp, #80]
  ldp x19, x20, [sp, #64]
  ldp d14, d15, [sp, #48]
  ldp d12, d13, [sp, #32]
  ldp d10, d11, [sp, #16]
  ldp d8, d9, [sp], #128
  ret
  .size \name, . - \name
.endm

// The general path: the sums of one block. Arguments and results are where the register map has
// them; x0 moves on. Only sum_block() of the C++ file calls it; it lists the clobbers.
.macro general_path name, filters, step, addend
function \name
  load_pointers x1
  load_start \step
 .ifc \addend, sparse
  add_sparse
 .endif
  sum_runs \filters
  ret
  .size \name, . - \name
.endm

  .arch armv8.2-a+fp16+dotprod
  .text

  fast_path qpp_sdot_blocks_qai8, qai8, 8, none
  fast_path qpp_sdot_blocks_qai8_sparse, qai8, 8, sparse
  fast_path qpp_sdot_blocks_qai8_residual, qai8, 8, residual
  fast_path qpp_sdot_blocks_qai8_half, qai8, 4, none
  fast_path qpp_sdot_blocks_qai8_half_residual, qai8, 4, residual
  fast_path qpp_sdot_blocks_qai16, qai16, 8, none
  fast_path qpp_sdot_blocks_qai16_sparse, qai16, 8, sparse
  fast_path qpp_sdot_blocks_qai16_half, qai16, 4, none

  general_path qpp_sdot_block, 8, 0, none
  general_path qpp_sdot_block_each, 8, 32, none
  general_path qpp_sdot_block_sparse, 8, 0, sparse
  general_path qpp_sdot_block_half, 4, 0, none

  .section .note.GNU-stack, "", %progbits
