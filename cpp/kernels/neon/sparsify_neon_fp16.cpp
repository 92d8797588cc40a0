// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/neon/vectors.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

/// 16 levels as bytes, clipped to the byte's bounds. `kAllBytes`: these are -128 and 127.
template <bool kAllBytes>
class FromLevels {
 public:
  using Src = std::int16_t;

  QPP_NEON_INLINE explicit FromLevels(const SparsifyArgs& args)
      : lo_(vdupq_n_s8(static_cast<std::int8_t>(std::clamp(args.lo, args.qmin, args.qmax)))),
        hi_(vdupq_n_s8(static_cast<std::int8_t>(std::clamp(args.hi, args.qmin, args.qmax)))) {}
  QPP_NEON_INLINE int8x16_t operator()(const std::int16_t* src) const {
    const int8x8_t low = vqmovn_s16(vld1q_s16(src));
    return clamp(vqmovn_high_s16(low, vld1q_s16(src + 8)));
  }
  QPP_NEON_INLINE int8x8_t eight(const std::int16_t* src) const {
    const int8x8_t low = vqmovn_s16(vld1q_s16(src));
    return vget_low_s8(clamp(vcombine_s8(low, low)));
  }
  /// Whether any of the levels is below the byte's bound.
  QPP_NEON_INLINE static bool any_below(const SparsifyArgs& args) {
    const auto* src = static_cast<const std::int16_t*>(args.src);
    int16x8_t least = vld1q_s16(src);
    for (std::int64_t i = 8; i < args.pixels * args.channels; i += 8) {
      least = vminq_s16(least, vld1q_s16(src + i));
    }
    return vminvq_s16(least) < args.qmin;
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE int8x16_t clamp(int8x16_t levels) const {
    return kAllBytes ? levels : vminq_s8(vmaxq_s8(levels, lo_), hi_);
  }
  int8x16_t lo_;
  int8x16_t hi_;
};

/// The same from fp16, in the way of quantize_qai8_f16_neon_fp16, for finite halves `least` and
/// `most` that give the byte's bounds. `kPlain`: the inverse is 1 and the zero point even, so that
/// it may be added before a sum is rounded to an even number.
template <bool kPlain>
class FromHalves {
 public:
  using Src = half;

  QPP_NEON_INLINE FromHalves(const SparsifyArgs& args, half inverse, half least, half most)
      : inverse_(load_broadcast(&inverse)),
        least_(load_broadcast(&least)),
        most_(load_broadcast(&most)),
        magic_(vdupq_n_f16(static_cast<float16_t>(1536 + (kPlain ? args.zero_point : 0)))),
        zero_point_(vdupq_n_s8(static_cast<std::int8_t>(args.zero_point))) {}
  QPP_NEON_INLINE int8x16_t operator()(const half* src) const {
    return join(round(src), round(src + 8));
  }
  QPP_NEON_INLINE int8x8_t eight(const half* src) const {
    const int8x16_t rounded = round(src);
    return vget_low_s8(join(rounded, rounded));
  }
  [[nodiscard]] QPP_NEON_INLINE bool any_below(const SparsifyArgs& args) const {
    const auto* src = static_cast<const half*>(args.src);
    float16x8_t least = least_;
    for (std::int64_t i = 0; i < args.pixels * args.channels; i += 8) {
      least = vminnmq_f16(least, load(src + i));
    }
    return vminnmvq_f16(least) < vgetq_lane_f16(least_, 0);
  }

 private:
  [[nodiscard]] QPP_NEON_INLINE int8x16_t round(const half* src) const {
    const float16x8_t value = vminnmq_f16(vmaxq_f16(load(src), least_), most_);
    return vreinterpretq_s8_f16(kPlain ? vaddq_f16(value, magic_)
                                       : vfmaq_f16(magic_, value, inverse_));
  }
  [[nodiscard]] QPP_NEON_INLINE int8x16_t join(int8x16_t low, int8x16_t high) const {
    const int8x16_t bytes = vuzp1q_s8(low, high);
    return kPlain ? bytes : vaddq_s8(bytes, zero_point_);
  }
  float16x8_t inverse_;
  float16x8_t least_;
  float16x8_t most_;
  float16x8_t magic_;
  int8x16_t zero_point_;
};

/// Bytes that may be clipped levels: those at a bound which levels may exceed.
template <bool kBothSides>
class Candidates {
 public:
  QPP_NEON_INLINE explicit Candidates(const SparsifyArgs& args)
      : qmin_(vdupq_n_s8(static_cast<std::int8_t>(args.qmin))),
        qmax_(vdupq_n_s8(static_cast<std::int8_t>(args.qmax))) {}
  QPP_NEON_INLINE uint8x16_t operator()(int8x16_t bytes) const {
    uint8x16_t found = vceqq_s8(bytes, qmax_);
    if (kBothSides) found = vorrq_u8(found, vceqq_s8(bytes, qmin_));
    return vandq_u8(found, kBits);
  }

 private:
  static constexpr uint8x16_t kBits{1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  int8x16_t qmin_;
  int8x16_t qmax_;
};

constexpr std::int64_t kGroup = 64;   // channels whose candidates are bits of one mask
constexpr std::int64_t kGroups = 16;  // whose masks are made before their bits are looked at

/// Stores 64 bytes; returns the mask of candidates.
template <typename Find, typename Bytes>
QPP_NEON_INLINE std::uint64_t split_group(const Find& candidates, const Bytes& bytes,
                                          const typename Bytes::Src* src, std::int8_t* dst) {
  uint8x16_t masks[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int8x16_t sixteen = bytes(src + 16 * i);
    vst1q_s8(dst + 16 * i, sixteen);
    masks[i] = candidates(sixteen);
  }
  const uint8x16_t pairs = vpaddq_u8(vpaddq_u8(masks[0], masks[1]), vpaddq_u8(masks[2], masks[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)), 0);
}

/// The same for a multiple of 8 channels below 64.
template <typename Find, typename Bytes>
QPP_NEON_INLINE std::uint64_t split_part(const Find& candidates, const Bytes& bytes,
                                         const typename Bytes::Src* src, std::int8_t* dst,
                                         std::int64_t channels) {
  std::uint64_t mask = 0;
  for (std::int64_t c = 0; c < channels; c += 8) {
    const int8x8_t eight = bytes.eight(src + c);
    vst1_s8(dst + c, eight);
    const uint8x8_t bits = vget_low_u8(candidates(vcombine_s8(eight, eight)));
    mask |= std::uint64_t{vaddv_u8(bits)} << c;
  }
  return mask;
}

/// Appends the outliers among a group's candidates; returns how many are saturated.
template <typename Src>
QPP_NEON_INLINE std::uint32_t append(OutlierAppender& appender, const SparsifyArgs& args,
                                     std::uint64_t mask, std::int64_t first) {
  std::uint32_t saturated = 0;
  const Src* src = static_cast<const Src*>(args.src) + first;
  const std::int8_t* dst = args.dst + first;
  // Most groups have none or one, which is unpredictable: one is handled without a branch.
  do {
    const auto bit = static_cast<std::int64_t>(std::countr_zero(mask));  // 64: there is none
    const std::int64_t at = bit % kGroup;
    const std::int32_t level = sparsify_level(args, src[at]);
    appender.append_if(mask != 0, args.x * args.channels + first + at, level - dst[at]);
    saturated += static_cast<std::uint32_t>(mask != 0) & is_saturated(args, level);
    mask &= mask - 1;
  } while (mask != 0);
  return saturated;
}

// dst = min(max(x, qmin), qmax), x - dst to the row, sparsify.h
//
// src, dst       int16 or fp16, and int8, [pixels][channels]
// preconditions  channels % 8 == 0; no over-read
// method         Bytes at a bound may have been clipped: one bit for each of 64 channels. For the
//                few bits that are set, the level is computed again as in the reference, and
//                entries made where it differs
// registers      8 for levels, 4 for bytes, 4 for masks, 5 to 7 constants
// loop budget    64 channels of int16: 8 loads, 8 SQXTN, 4 CMEQ, 4 AND, 4 ADDP, 4 stores: 24
//                slots of the vector pipes, 12 cycles on A76 (16 for other bounds than a byte's);
//                of halves that are levels: 8 FMAX, 8 FMINNM, 8 FADD, 4 UZP1 instead: 22 cycles;
//                about 12 to look at the set bits
template <bool kBothSides, typename Bytes>
QPP_NEON_INLINE std::uint32_t sparsify(const SparsifyArgs& given, const Bytes& bytes) {
  using Src = Bytes::Src;
  const SparsifyArgs args = given;  // a copy, which no store can change
  const Candidates<kBothSides> candidates(args);
  OutlierAppender appender(args.row, args.x);
  const auto* src = static_cast<const Src*>(args.src);
  const std::int64_t groups = (args.channels + kGroup - 1) / kGroup;  // of a pixel
  const std::int64_t last = args.channels - (groups - 1) * kGroup;    // channels of its last group
  const std::int64_t count = args.pixels * groups;
  std::int64_t group = 0;  // of its pixel
  std::int64_t first = 0;  // element of a group
  std::int64_t x = args.x;
  std::uint32_t saturated = 0;
  for (std::int64_t begin = 0; begin < count; begin += kGroups) {
    const std::int64_t end = std::min(begin + kGroups, count);
    std::uint64_t masks[kGroups];
    std::int64_t split = first;
    std::int64_t split_group_of_pixel = group;
    for (std::int64_t i = begin; i < end; ++i) {
      const bool is_last = ++split_group_of_pixel == groups;
      masks[i - begin] = is_last && last < kGroup
                             ? split_part(candidates, bytes, src + split, args.dst + split, last)
                             : split_group(candidates, bytes, src + split, args.dst + split);
      split += is_last ? last : kGroup;
      if (is_last) split_group_of_pixel = 0;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      saturated += append<Src>(appender, args, masks[i - begin], first);
      const bool is_last = ++group == groups;
      first += is_last ? last : kGroup;
      if (!is_last) continue;
      group = 0;
      appender.end_pixel(x++);
    }
  }
  return saturated;
}

template <typename Bytes>
QPP_NEON_INLINE std::uint32_t sparsify(const SparsifyArgs& args, const Bytes& bytes) {
  return args.lo < args.qmin && bytes.any_below(args) ? sparsify<true>(args, bytes)
                                                      : sparsify<false>(args, bytes);
}

}  // namespace

std::uint32_t sparsify_qai8_qai16_neon_fp16(const SparsifyArgs& args) {
  if (std::max(args.lo, args.qmin) == INT8_MIN && std::min(args.hi, args.qmax) == INT8_MAX) {
    return sparsify(args, FromLevels<true>(args));
  }
  return sparsify(args, FromLevels<false>(args));
}

std::uint32_t sparsify_qai8_f16_neon_fp16(const SparsifyArgs& args) {
  const half inverse = to_half(args.inverse_scale);
  const auto bound = [&](std::int32_t level) QPP_NEON_INLINE_LAMBDA {
    const std::int32_t steps = std::clamp(level, args.qmin, args.qmax) - args.zero_point;
    return to_half(static_cast<float>(steps) / args.inverse_scale);
  };
  const half least = bound(args.lo);
  const half most = bound(args.hi);
  if (to_float(inverse) != args.inverse_scale || !std::isfinite(to_float(least)) ||
      !std::isfinite(to_float(most))) {
    return sparsify_qai8_f16_ref(args);
  }
  if (args.inverse_scale == 1 && args.zero_point % 2 == 0) {
    return sparsify(args, FromHalves<true>(args, inverse, least, most));
  }
  return sparsify(args, FromHalves<false>(args, inverse, least, most));
}

}  // namespace qpp
