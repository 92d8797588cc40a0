// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/block_output.h"
#include "kernels/neon/conv_source.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

constexpr int kTile = 8;  // pixels
constexpr int kFilters = 8;

/// sum += weights * pixel[kLane]. The statement is volatile to keep the order in which the kernel
/// takes the sums in turn: reordered, an FMLA waits for the one before.
template <int kLane>
QPP_NEON_INLINE void multiply_add(float16x8_t& sum, float16x8_t weights, float16x8_t pixel) {
  asm volatile("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(sum) : "w"(weights), "x"(pixel), "i"(kLane));
}

/// One channel of a group of pixels times eight filters.
template <int kLane, int kGroup>
QPP_NEON_INLINE void accumulate(float16x8_t* sums, const float16x8_t (&pixels)[kGroup],
                                const float16x8_t (&weights)[8]) {
#pragma GCC unroll 4
  for (int p = 0; p < kGroup; ++p) multiply_add<kLane>(sums[p], weights[kLane], pixels[p]);
}

/// The same with weights from memory.
template <int kLane, int kGroup>
QPP_NEON_INLINE void accumulate_row(float16x8_t* sums, const float16x8_t (&pixels)[kGroup],
                                    const half* weights) {
  const float16x8_t row = load(weights + kLane * kFilters);
#pragma GCC unroll 4
  for (int p = 0; p < kGroup; ++p) multiply_add<kLane>(sums[p], row, pixels[p]);
}

/// MOVI, which takes no slot of the vector pipes; the compiler would copy one zero to all
/// registers.
QPP_NEON_INLINE float16x8_t zero() {
  float16x8_t value;
  asm volatile("movi %0.8h, #0" : "=w"(value));
  return value;
}

/// Sums of many fp16 products that keep their precision, in four stages: chains of about kChain
/// products in fp16; kChains of them added up in fp16; two such groups, of which the first is put
/// aside; and these pairs in fp32.
template <int kPixels>
class SplitSums {
 public:
  static constexpr int kChain = 32;
  static constexpr int kChains = 9;

  /// Sums that do not fit in registers. All blocks of a call share one, since clearing it takes as
  /// long as 200 products.
  struct Memory {
    float16x8_t first[kPixels] = {};
    Float8 wide[kPixels] = {};
  };

  QPP_NEON_INLINE explicit SplitSums(Memory& memory) : memory_(memory) {
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      chain_[p] = zero();
      sums_[p] = zero();
    }
  }

  QPP_NEON_INLINE float16x8_t (&chain()) [kPixels] { return chain_; }

  /// Tells that `products` more have been added to the chain.
  QPP_NEON_INLINE void added(int products) {
    products_ += products;
    if (products_ < kChain) return;
    products_ = 0;
    if (++chains_ > kChains) end_group();
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      sums_[p] = vaddq_f16(sums_[p], chain_[p]);
      chain_[p] = zero();
    }
  }

  /// Tells that all products have been added.
  QPP_NEON_INLINE void finish() {
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) sums_[p] = vaddq_f16(sums_[p], chain_[p]);
    if (!has_first_) return;
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) sums_[p] = vaddq_f16(sums_[p], memory_.first[p]);
  }

  /// Whether the total is more than narrow_total().
  [[nodiscard]] QPP_NEON_INLINE bool is_wide() const { return is_wide_; }
  [[nodiscard]] QPP_NEON_INLINE float16x8_t narrow_total(int p) const { return sums_[p]; }
  [[nodiscard]] QPP_NEON_INLINE Float8 total(int p) const {
    const Float8 last = to_float32(sums_[p]);
    return is_wide_ ? add(memory_.wide[p], last) : last;
  }

 private:
  QPP_NEON_INLINE void end_group() {
    chains_ = 1;
    has_first_ = !has_first_;
    if (has_first_) {
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
        memory_.first[p] = sums_[p];
        sums_[p] = zero();
      }
      return;
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      const Float8 pair = to_float32(vaddq_f16(memory_.first[p], sums_[p]));
      memory_.wide[p] = is_wide_ ? add(memory_.wide[p], pair) : pair;
      sums_[p] = zero();
    }
    is_wide_ = true;
  }

  float16x8_t chain_[kPixels];
  float16x8_t sums_[kPixels];
  Memory& memory_;  // first if has_first_, wide if is_wide_
  int products_ = 0;
  int chains_ = 0;
  bool has_first_ = false;
  bool is_wide_ = false;
};

// dst[p, f] = output(sum over tap, c of src[p, tap][c] * weights[f][tap][c])
//
// src            fp16 NHWC; a pixel of `channels` elements per tap, found as in conv_source.h
// weights        fp16, (f, tap, c) at [f / 8][tap][c][f % 8]
// dst            int8 or fp16, (p, f) at p * dst_stride + f
// preconditions  filters % 8 == 0; no over-read
// registers      8 for the chains, 8 for the sums of chains, 8 for the weights of 8 channels, 4 for
//                8 channels of 4 pixels, which must be among v0 .. v15; further sums are in memory
// loop budget    8 channels: 16 loads, 64 FMLA (512 MACs), bound by both vector pipes: 32 cycles on
//                A76. End of a chain: 8 FADD, 4 cycles; of every ninth: 8 stores, or 80 slots with
//                conversion. Output of a block from fp16 sums: 8 to 16 FADD for the last sums, 8
//                for the bias, 16 FMAX/FMIN, 8 stores: 24 cycles; the range 8 more. A single pixel,
//                as in a linear layer: 8 FMLA, one after the other, 16 cycles for 128 bytes of
//                weights, which memory takes longer to bring. Its sums are the same as in a tile
// choices        modelled A76, 576 products: 2484 cycles a block, 93 % of peak. One chain of all
//                would have a relative rms error of 2.5e-3 for 576 products and 7e-3 for 4608
//                (normal weights, rectified normal sources). FMLA by statement, because GCC 12
//                makes DUP and FMLA of vfmaq_laneq_f16: 50 % of peak
template <typename Dst, template <typename, int> typename Source, int kPixels, bool kResidual>
QPP_NEON_INLINE void convolve(const ConvArgs& args) {
  // Pixels in turn: as many as cover the two cycles that a sum takes.
  constexpr int kGroup = kPixels < 4 ? kPixels : 4;
  BlockOutput<Dst, kResidual, kPixels> output(args);
  typename SplitSums<kPixels>::Memory memory;
  const half* weights = static_cast<const half*>(args.weights);
  const std::int64_t channels = Source<half, kTile>(args).channels();
  const std::int64_t rest = channels % 8;
  const std::int64_t whole = channels - rest;

  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    SplitSums<kPixels> sums(memory);
    for (Source<half, kTile> source(args); source.valid(); source.next()) {
      const half* src[kPixels];
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) src[p] = source.pixel(p);
      for (std::int64_t c = 0; c != whole; c += 8) {
        float16x8_t rows[8];
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) rows[k] = load(weights + k * kFilters);
#pragma GCC unroll 2
        for (int first = 0; first < kPixels; first += kGroup) {
          float16x8_t pixels[kGroup];
#pragma GCC unroll 4
          for (int p = 0; p < kGroup; ++p) pixels[p] = load(src[first + p] + c);
          float16x8_t* chain = sums.chain() + first;
          accumulate<0>(chain, pixels, rows);
          accumulate<1>(chain, pixels, rows);
          accumulate<2>(chain, pixels, rows);
          accumulate<3>(chain, pixels, rows);
          accumulate<4>(chain, pixels, rows);
          accumulate<5>(chain, pixels, rows);
          accumulate<6>(chain, pixels, rows);
          accumulate<7>(chain, pixels, rows);
        }
        weights += 8 * kFilters;
        sums.added(8);
      }
      if (rest == 0) continue;
#pragma GCC unroll 2
      for (int first = 0; first < kPixels; first += kGroup) {
        float16x8_t pixels[kGroup];
#pragma GCC unroll 4
        for (int p = 0; p < kGroup; ++p) pixels[p] = load(src[first + p] + whole);
        float16x8_t* chain = sums.chain() + first;
        accumulate_row<0>(chain, pixels, weights);
        if (rest > 1) accumulate_row<1>(chain, pixels, weights);
        if (rest > 2) accumulate_row<2>(chain, pixels, weights);
        if (rest > 3) accumulate_row<3>(chain, pixels, weights);
        if (rest > 4) accumulate_row<4>(chain, pixels, weights);
        if (rest > 5) accumulate_row<5>(chain, pixels, weights);
        if (rest > 6) accumulate_row<6>(chain, pixels, weights);
      }
      weights += rest * kFilters;
      sums.added(static_cast<int>(rest));
    }
    sums.finish();
    if constexpr (std::is_same_v<Dst, half>) {
      const OutputStage& stage = output.stage();
      if (stage.multiplier == nullptr && stage.nonlinearity == Nonlinearity::clamp &&
          !sums.is_wide() && !(kResidual && stage.residual.dtype == DType::qai8)) {
        const float16x8_t bias = narrow(load(stage.bias + filter));
        output.store_halves(filter, [&](int p) QPP_NEON_INLINE_LAMBDA {
          const float16x8_t level = vaddq_f16(sums.narrow_total(p), bias);
          if constexpr (!kResidual) return level;
          return vaddq_f16(level, load(output.template residual<half>(p, filter)));
        });
        continue;
      }
    }
    output.store_block(filter, [&sums](int p) QPP_NEON_INLINE_LAMBDA { return sums.total(p); });
  }
  output.finish();
}

/// Not inlined: the plain convolution would get other registers.
template <typename Dst, template <typename, int> typename Source, int kPixels>
[[gnu::noinline]] void convolve_residual(const ConvArgs& args) {
  convolve<Dst, Source, kPixels, true>(args);
}

template <typename Dst, template <typename, int> typename Source, int kPixels>
QPP_NEON_INLINE void convolve(const ConvArgs& args) {
  if (args.residual != nullptr) return convolve_residual<Dst, Source, kPixels>(args);
  convolve<Dst, Source, kPixels, false>(args);
}

/// Not inlined, either.
template <typename Dst>
[[gnu::noinline]] void convolve_pixel(const ConvArgs& args) {
  convolve<Dst, PointerSource, 1>(args);
}

/// Family conv.
template <typename Dst>
QPP_NEON_INLINE void convolve(const ConvArgs& args) {
  if (args.pixel_count == 1) return convolve_pixel<Dst>(args);
  convolve<Dst, PointerSource, kTile>(args);
}

}  // namespace

void conv_f16_f16_f16_8x8_neon_fp16(const ConvArgs& args) { convolve<half>(args); }
void conv_qai8_f16_f16_8x8_neon_fp16(const ConvArgs& args) { convolve<std::int8_t>(args); }
void conv3x3s1_f16_f16_f16_8x8_neon_fp16(const ConvArgs& args) {
  convolve<half, Interior3x3Source, kTile>(args);
}
void conv3x3s1_qai8_f16_f16_8x8_neon_fp16(const ConvArgs& args) {
  convolve<std::int8_t, Interior3x3Source, kTile>(args);
}

}  // namespace qpp
