// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/variants.h"
#include "kernels/x86/vectors.h"

namespace qpp {
namespace {

constexpr int kPixels = 6;
constexpr int kFilters = 16;
constexpr int kChunk = 64;  // channels that are converted at a time

/// int8: products of two channels are summed exactly in 32 bits.
struct Int8 {
  using Source = std::int8_t;
  using Wide = std::int16_t;
  using Weight = std::int8_t;
  using Sums = __m256i;  // of eight filters
  static constexpr int kChannels = 2;

  QPP_X86_INLINE static Sums initial(const ConvArgs& args, int pixel, std::int64_t filter) {
    const OutputStage& output = *args.output;
    const __m256i correction = load(output.correction + filter);
    if (args.sparse == nullptr || pixel >= args.pixel_count || filter >= args.filters) {
      return correction;
    }
    const __m256 wide = load_as_float32(args.sparse + pixel * args.filters + filter);
    const __m256 unit = _mm256_set1_ps(kSparseUnit);
    return output.magic_bias_accumulators
               ? _mm256_castps_si256(_mm256_fmadd_ps(wide, unit, _mm256_castsi256_ps(correction)))
               : _mm256_add_epi32(correction, _mm256_cvtps_epi32(_mm256_mul_ps(wide, unit)));
  }
  QPP_X86_INLINE static void convert(const Source* src, Wide* dst) {
    _mm_store_si128(reinterpret_cast<__m128i*>(dst),
                    _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(src))));
  }
  QPP_X86_INLINE static Sums load_weights(const Weight* weights) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(weights)));
  }
  QPP_X86_INLINE static Sums broadcast(const Wide* channels) {
    std::int32_t two = 0;
    std::memcpy(&two, channels, sizeof(two));
    return _mm256_set1_epi32(two);
  }
  QPP_X86_INLINE static Sums accumulate(Sums sums, Sums pixel, Sums weights) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pixel, weights));
  }
  QPP_X86_INLINE static __m256 to_float(Sums sums) { return _mm256_cvtepi32_ps(sums); }
  QPP_X86_INLINE static __m256 as_float_bits(Sums sums) { return _mm256_castsi256_ps(sums); }

 private:
  QPP_X86_INLINE static __m256i load(const std::int32_t* src) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
  }
};

/// fp16: everything is converted to float.
struct Fp16 {
  using Source = half;
  using Wide = float;
  using Weight = float;
  using Sums = __m256;
  static constexpr int kChannels = 1;

  QPP_X86_INLINE static Sums initial(const ConvArgs& /*args*/, int /*pixel*/,
                                     std::int64_t /*filter*/) {
    return _mm256_setzero_ps();
  }
  QPP_X86_INLINE static void convert(const Source* src, Wide* dst) {
    _mm256_store_ps(dst, load_as_float32(src));
  }
  QPP_X86_INLINE static Sums load_weights(const Weight* weights) { return _mm256_load_ps(weights); }
  QPP_X86_INLINE static Sums broadcast(const Wide* channel) { return _mm256_set1_ps(*channel); }
  QPP_X86_INLINE static Sums accumulate(Sums sums, Sums pixel, Sums weights) {
    return _mm256_fmadd_ps(pixel, weights, sums);
  }
  QPP_X86_INLINE static __m256 to_float(Sums sums) { return sums; }
  QPP_X86_INLINE static __m256 as_float_bits(Sums sums) { return sums; }
};

/// The twin of clamp_level() in output_stage.h.
QPP_X86_INLINE __m256 clamp_vector(__m256 level, __m256 lo, __m256 hi) {
  level = _mm256_blendv_ps(level, lo, _mm256_cmp_ps(level, lo, _CMP_LE_OQ));
  return _mm256_min_ps(hi, level);  // keeps NaN, since that comes second
}

/// The twin of tanh_shared() in output_stage.h.
QPP_X86_INLINE __m256 tanh_vector(__m256 x) {
  const __m256 magic = _mm256_set1_ps(kRoundingMagic);
  const __m256 one = _mm256_set1_ps(1);
  const __m256 clamped = clamp_vector(x, _mm256_set1_ps(-kTanhLimit), _mm256_set1_ps(kTanhLimit));
  const __m256 y = _mm256_add_ps(clamped, clamped);
  const __m256 shifted = _mm256_fmadd_ps(y, _mm256_set1_ps(kLog2E), magic);
  const __m256 n = _mm256_sub_ps(shifted, magic);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2High), y);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2Low), r);
  __m256 p = _mm256_fmadd_ps(r, _mm256_set1_ps(1.0F / 720.0F), _mm256_set1_ps(1.0F / 120.0F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 24.0F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F / 6.0F));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5F));
  p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  const __m256 power = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(one)));
  const __m256 e = _mm256_fmadd_ps(power, p, _mm256_sub_ps(power, one));
  return _mm256_div_ps(e, _mm256_add_ps(e, _mm256_set1_ps(2)));
}

/// The twin of output_level(), store() and store_magic_bias() in output_stage.h, for eight filters
/// of a pixel.
template <typename Dst, typename Type>
class VectorOutput {
 public:
  QPP_X86_INLINE explicit VectorOutput(const OutputStage& stage)
      : stage_(stage),
        lo_(_mm256_set1_ps(stage.lo)),
        hi_(_mm256_set1_ps(stage.hi)),
        range_lo_(_mm256_set1_ps(INFINITY)),
        range_hi_(_mm256_set1_ps(-INFINITY)),
        nan_(_mm256_setzero_ps()) {}

  /// `residual` has the element of the first filter at `index`, or is null.
  QPP_X86_INLINE void store(Type::Sums sums, std::int64_t filter, Dst* dst, const void* residual,
                            std::int64_t index) {
    const __m256 multiplier = stage_.multiplier == nullptr
                                  ? _mm256_set1_ps(1)
                                  : _mm256_loadu_ps(stage_.multiplier + filter);
    const __m256 bias = _mm256_loadu_ps(stage_.bias + filter);
    if (stage_.magic_bias_accumulators) {
      if constexpr (std::is_same_v<Type, Int8> && std::is_same_v<Dst, std::int8_t>) {
        if (residual != nullptr) sums = add_to_sums(sums, filter, residual, index);
      }
      store_magic_bias(_mm256_fmadd_ps(Type::as_float_bits(sums), multiplier, bias), dst, residual,
                       index);
      return;
    }
    __m256 level = _mm256_fmadd_ps(Type::to_float(sums), multiplier, bias);
    if (stage_.nonlinearity == Nonlinearity::tanh) {
      level = _mm256_mul_ps(tanh_vector(level), _mm256_set1_ps(stage_.post_scale));
    }
    if (residual != nullptr) level = add_residual(level, residual, index);
    store_level(clamp_vector(level, lo_, hi_), dst);
  }

  /// Writes back the range of the stored values, if it is requested.
  QPP_X86_INLINE void finish() const {
    if (!std::is_same_v<Dst, half> || stage_.range == nullptr) return;
    alignas(32) float lo[8];
    alignas(32) float hi[8];
    const bool has_nan = _mm256_movemask_ps(nan_) != 0;
    _mm256_store_ps(lo, range_lo_);
    _mm256_store_ps(hi, range_hi_);
    for (int i = 0; i < 8; ++i) {
      // Rounding is monotonic: the rounded bounds of the levels are those of the stored values.
      const float least = has_nan ? NAN : _cvtsh_ss(_cvtss_sh(lo[i], _MM_FROUND_TO_NEAREST_INT));
      const float most = has_nan ? NAN : _cvtsh_ss(_cvtss_sh(hi[i], _MM_FROUND_TO_NEAREST_INT));
      extend_range(*stage_.range, {.lo = least, .hi = most});
    }
  }

 private:
  QPP_X86_INLINE void store_magic_bias(__m256 level, std::int8_t* dst, const void* /*residual*/,
                                       std::int64_t /*index*/) const {
    const __m256i integers =
        _mm256_srai_epi32(_mm256_slli_epi32(_mm256_castps_si256(level), 16), 16);
    store_low_bytes(_mm256_min_epi32(_mm256_max_epi32(integers, _mm256_cvtps_epi32(lo_)),
                                     _mm256_cvtps_epi32(hi_)),
                    dst);
  }
  QPP_X86_INLINE void store_magic_bias(__m256 level, std::int16_t* dst, const void* /*residual*/,
                                       std::int64_t /*index*/) const {
    store_low_halves(_mm256_castps_si256(level), dst);
  }
  QPP_X86_INLINE void store_magic_bias(__m256 level, half* dst, const void* residual,
                                       std::int64_t index) {
    if (residual != nullptr) level = add_residual(level, residual, index);
    store_level(clamp_vector(level, lo_, hi_), dst);
  }

  [[nodiscard]] QPP_X86_INLINE static __m256i load_bytes(const void* src, std::int64_t index) {
    const auto* bytes = static_cast<const std::int8_t*>(src) + index;
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  }

  [[nodiscard]] QPP_X86_INLINE __m256 add_residual(__m256 level, const void* residual,
                                                   std::int64_t index) const {
    __m256 r;
    if (stage_.residual.dtype == DType::qai8) {
      const __m256i zero_point = _mm256_set1_epi32(stage_.residual.zero_point);
      r = _mm256_cvtepi32_ps(_mm256_sub_epi32(load_bytes(residual, index), zero_point));
    } else {
      r = load_as_float32(static_cast<const half*>(residual) + index);
    }
    return _mm256_fmadd_ps(r, _mm256_set1_ps(stage_.residual.scale), level);
  }

  /// An int8 residual to sums of int8 products.
  [[nodiscard]] QPP_X86_INLINE __m256i add_to_sums(__m256i sums, std::int64_t filter,
                                                   const void* residual, std::int64_t index) const {
    const __m256i factor = _mm256_cvtepi16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(stage_.residual.factor + filter)));
    return _mm256_add_epi32(sums, _mm256_mullo_epi32(load_bytes(residual, index), factor));
  }

  QPP_X86_INLINE void store_level(__m256 level, std::int8_t* dst) const {
    store_low_bytes(round(level), dst);
  }
  QPP_X86_INLINE void store_level(__m256 level, std::int16_t* dst) const {
    store_low_halves(round(level), dst);
  }

  [[nodiscard]] QPP_X86_INLINE __m256i round(__m256 level) const {
    const __m256 rounded = _mm256_add_ps(level, _mm256_set1_ps(kRoundingMagic));
    return _mm256_add_epi32(_mm256_castps_si256(rounded), _mm256_set1_epi32(stage_.zero_point));
  }

  QPP_X86_INLINE static void store_low_halves(__m256i values, std::int16_t* dst) {
    const __m256i halves = _mm256_and_si256(values, _mm256_set1_epi32(0xffff));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(dst),
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  }

  QPP_X86_INLINE void store_level(__m256 level, half* dst) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), narrow(level));
    range_lo_ = _mm256_min_ps(range_lo_, level);
    range_hi_ = _mm256_max_ps(range_hi_, level);
    nan_ = _mm256_or_ps(nan_, _mm256_cmp_ps(level, level, _CMP_UNORD_Q));
  }

  const OutputStage& stage_;
  __m256 lo_;
  __m256 hi_;
  __m256 range_lo_;
  __m256 range_hi_;
  __m256 nan_;  // lanes with a set sign bit have met NaN
};

// dst[p, f] = output(correction[f] + sum over tap, c of src[p, tap][c] * weights[f][tap][c])
//
// src            int8 or fp16 NHWC, a pixel of `channels` elements per tap
// weights        int8, (f, tap, c) at [f / 16][tap][c / 2][f % 16][c % 2]; float, at
//                [f / 16][tap][c][f % 16]
// dst            int8, int16 or fp16, (p, f) at p * dst_stride + f
// preconditions  filters % 8 == 0; pixels are read up to the next multiple of 8 channels
// registers      12 for the sums (pixel p, filters 8h .. 8h + 7), 2 for weights, 1 for the pixel,
//                1 for the products
// method         Channels are converted (to int16 or float) to a small buffer, from where one load
//                broadcasts them. int8: VPMADDWD multiplies two channels and adds the products,
//                exactly, as 2 * 128 * 127 is far from overflow
// loop budget    int8, 2 channels: 2 loads of weights, 6 broadcasts, 12 VPMADDWD, 12 VPADDD for 192
//                MACs: 6 cycles where two VPMADDWD start in a cycle; float, 1 channel: 2 loads, 6
//                broadcasts, 12 FMAs for 96 MACs: 6 cycles, too
template <typename Dst, typename Type>
QPP_X86_INLINE void conv_6x16(const ConvArgs& args) {
  using Wide = Type::Wide;
  VectorOutput<Dst, Type> output(*args.output);
  const auto* weights = static_cast<const Type::Weight*>(args.weights);
  for (std::int64_t filter = 0; filter < args.filters; filter += kFilters) {
    typename Type::Sums sums[kPixels][2];
#pragma GCC unroll 6
    for (int p = 0; p < kPixels; ++p) {
      sums[p][0] = Type::initial(args, p, filter);
      sums[p][1] = Type::initial(args, p, filter + 8);
    }
    for (std::int64_t tap = 0; tap < args.taps; ++tap) {
      for (std::int64_t first = 0; first < args.channels; first += kChunk) {
        const std::int64_t remaining = args.channels - first;
        const std::int64_t count = remaining < kChunk ? remaining : kChunk;
        alignas(32) Wide wide[kPixels][kChunk];
        for (int p = 0; p < kPixels; ++p) {
          const auto* src =
              static_cast<const Type::Source*>(args.pixels[tap * kPixels + p]) + first;
          for (std::int64_t c = 0; c < count; c += 8) Type::convert(src + c, wide[p] + c);
        }
        for (std::int64_t c = 0; c < count; c += Type::kChannels) {
          const auto low = Type::load_weights(weights);
          const auto high = Type::load_weights(weights + 8 * Type::kChannels);
          weights += kFilters * Type::kChannels;
#pragma GCC unroll 6
          for (int p = 0; p < kPixels; ++p) {
            const auto pixel = Type::broadcast(wide[p] + c);
            sums[p][0] = Type::accumulate(sums[p][0], pixel, low);
            sums[p][1] = Type::accumulate(sums[p][1], pixel, high);
          }
        }
      }
    }
    Dst* dst = static_cast<Dst*>(args.dst);
    const bool whole = filter + kFilters <= args.filters;
#pragma GCC unroll 6
    for (int p = 0; p < kPixels; ++p) {
      if (p >= args.pixel_count) break;
      const std::int64_t index = p * args.dst_stride + filter;
      output.store(sums[p][0], filter, dst + index, args.residual, index);
      if (whole) output.store(sums[p][1], filter + 8, dst + index + 8, args.residual, index + 8);
    }
  }
  output.finish();
}

}  // namespace

void conv_qai8_qai8_qsi8cx_6x16_x86_avx2(const ConvArgs& args) {
  conv_6x16<std::int8_t, Int8>(args);
}
void conv_f16_qai8_qsi8cx_6x16_x86_avx2(const ConvArgs& args) { conv_6x16<half, Int8>(args); }
void conv_qai16_qai8_qsi8cx_6x16_x86_avx2(const ConvArgs& args) {
  conv_6x16<std::int16_t, Int8>(args);
}
void conv_f16_f16_f32_6x16_x86_avx2(const ConvArgs& args) { conv_6x16<half, Fp16>(args); }
void conv_qai8_f16_f32_6x16_x86_avx2(const ConvArgs& args) { conv_6x16<std::int8_t, Fp16>(args); }

}  // namespace qpp
