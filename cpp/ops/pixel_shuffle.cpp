// SPDX-License-Identifier: Apache-2.0
#include "ops/pixel_shuffle.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/json_field.h"

namespace qpp {
namespace {

/// Moves channels between the pixels of a small image and those of one `r` times as high and wide:
/// channel c of a large pixel is channel c * r * r + i * r + j of a small one. `kChannels` is how
/// many a large pixel has, or 0: as its shape says.
template <typename T, bool kInverse, std::int64_t kChannels>
void shuffle(const RunArgs& args, std::int64_t r, ThreadPool& pool) {
  const Shape& small = kInverse ? args.output.shape : args.inputs[0].shape;
  const Shape& large = kInverse ? args.inputs[0].shape : args.output.shape;
  const std::int64_t channels = kChannels == 0 ? large.channels : kChannels;
  const std::int64_t step = r * r;
  const T* src = static_cast<const T*>(args.inputs[0].data);
  T* dst = static_cast<T*>(args.output.data);
  const auto zero_padding = [dst, stride = args.output.shape.stride()](std::int64_t pixel) {
    std::fill_n(dst + (pixel + 1) * stride - kChannelPadding, kChannelPadding, T{});
  };
  const auto move_row = [&](std::int64_t row, std::int64_t i) {
    for (std::int64_t x = 0; x < small.width; ++x) {
      const std::int64_t at = (row * small.width + x) * small.stride() + i * r;
      for (std::int64_t j = 0; j < r; ++j) {
        const std::int64_t pixel = (row * r + i) * large.width + x * r + j;
        if (!kInverse) zero_padding(pixel);
        for (std::int64_t c = 0; c < channels; ++c) {
          const std::int64_t from = at + j + c * step;
          const std::int64_t to = pixel * large.stride() + c;
          dst[kInverse ? from : to] = src[kInverse ? to : from];
        }
      }
    }
  };
  pool.parallel_for(small.batch * small.height,
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t row = begin; row < end; ++row) {
                        if (kInverse) {
                          for (std::int64_t x = 0; x < small.width; ++x)
                            zero_padding(row * small.width + x);
                        }
                        for (std::int64_t i = 0; i < r; ++i) move_row(row, i);
                      }
                    });
}

/// Of one channel, as in the super-resolution of brightness, loops over channels would cost most.
template <typename T>
void shuffle(const RunArgs& args, std::int64_t r, bool inverse, ThreadPool& pool) {
  if (inverse) return shuffle<T, true, 0>(args, r, pool);
  if (args.output.shape.channels == 1) return shuffle<T, false, 1>(args, r, pool);
  return shuffle<T, false, 0>(args, r, pool);
}

/// Writes float NCHW: r channels that follow each other become r columns of a row. kFactor is r, or
/// 0: any.
template <std::int64_t kFactor>
void export_shuffled(const RunArgs& args, std::int64_t factor, ThreadPool& pool) {
  const std::int64_t r = kFactor == 0 ? factor : kFactor;
  const Shape& small = args.inputs[0].shape;
  const Shape& large = args.output.shape;
  const std::int64_t stride = small.stride();
  const auto export_row = [&](const half* src, float* dst) {
    for (std::int64_t x = 0; x < small.width; ++x, src += stride, dst += r) {
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < r; ++j) dst[j] = to_float(src[j]);
    }
  };
  pool.parallel_for(
      small.batch * small.height, [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
        for (std::int64_t row = begin; row < end; ++row) {
          const half* src = args.inputs[0].as<half>() + row * small.width * stride;
          const std::int64_t image = row / small.height;
          const std::int64_t first = row % small.height * r;
          for (std::int64_t c = 0; c < large.channels; ++c) {
            for (std::int64_t i = 0; i < r; ++i) {
              const std::int64_t line = (image * large.channels + c) * large.height + first + i;
              export_row(src + (c * r + i) * r, args.direct_output + line * large.width);
            }
          }
        }
      });
}

void export_shuffled(const RunArgs& args, std::int64_t r, ThreadPool& pool) {
  if (r == 2) return export_shuffled<2>(args, r, pool);
  if (r == 3) return export_shuffled<3>(args, r, pool);
  if (r == 4) return export_shuffled<4>(args, r, pool);
  return export_shuffled<0>(args, r, pool);
}

}  // namespace

PixelShuffle::PixelShuffle(std::string name, std::int64_t factor, bool inverse, DType dtype)
    : name_(std::move(name)), factor_(factor), inverse_(inverse), dtype_(dtype) {}

Shape PixelShuffle::prepare(std::span<const Shape> inputs, int /*threads*/) {
  const Shape& src = inputs[0];
  const std::int64_t r = factor_;
  if (inverse_) {
    QPP_CHECK(src.height % r == 0 && src.width % r == 0, ShapeError, "node '", name_,
              "' (pixel_unshuffle): expected rows and columns divisible by ", r, ", got ",
              to_string(src));
    return {.batch = src.batch,
            .height = src.height / r,
            .width = src.width / r,
            .channels = src.channels * r * r};
  }
  QPP_CHECK(src.channels % (r * r) == 0, ShapeError, "node '", name_,
            "' (pixel_shuffle): expected channels divisible by ", r * r, ", got ", to_string(src));
  return {.batch = src.batch,
          .height = src.height * r,
          .width = src.width * r,
          .channels = src.channels / (r * r)};
}

void PixelShuffle::run(const RunArgs& args, RunState& state) const {
  if (args.direct_output != nullptr) return export_shuffled(args, factor_, state.pool);
  if (dtype_ == DType::qai8) {
    shuffle<std::int8_t>(args, factor_, inverse_, state.pool);
  } else {
    shuffle<half>(args, factor_, inverse_, state.pool);
  }
}

Int8Trait PixelShuffleSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::shares_qparams};
}

Operation PixelShuffleSpec::parse(const NodeFields& node) {
  constexpr std::int64_t kMaxFactor = 64;
  PixelShuffleSpec spec{.name = node.name, .inverse = node.op == "pixel_unshuffle"};
  const char* factor = spec.inverse ? "downscale_factor" : "upscale_factor";
  node.attributes.only({factor});
  node.expect_no_tensors();
  spec.factor = node.attributes[factor].integer(1, kMaxFactor);
  return {.make = [spec](const OpTypes& types, const OpContext& /*context*/) {
    return std::make_unique<PixelShuffle>(spec.name, spec.factor, spec.inverse, types.output.dtype);
  }};
}

}  // namespace qpp
