// SPDX-License-Identifier: Apache-2.0
#include "kernels/neon/pool_window.h"
#include "kernels/variants.h"

namespace qpp {
namespace {

struct Half8 {
  using value_type = half;
  using type = float16x8_t;
  QPP_NEON_INLINE static type load(const value_type* src) { return qpp::load(src); }
  QPP_NEON_INLINE static void store(value_type* dst, type value) { qpp::store(dst, value); }
  QPP_NEON_INLINE static type larger(type a, type b) { return vmaxq_f16(a, b); }
};

}  // namespace

// dst[p, c] = the largest of window(p, c), NaN if there is one, see pool.h
//
// rows, dst      fp16, NHWC
// preconditions  channels % 8 == 0; reads the windows and writes the output pixels, no more
// registers      20 columns of 3x3 windows of 32 channels
// loop budget    3x3, stride 2, 2 pixels of 32 channels: 48 loads, 32 + 16 FMAX, 8 stores: 56
//                slots, 28 cycles on A76 (0.44 an output element)
// choices        modelled A76, 56x56x64: 38 k cycles; 8 channels at a time, which meet each line
//                four times: 60 k
void maxpool_f16_f16_neon_fp16(const PoolArgs& args) {
  std::int64_t c = 0;
  max_pool<Line<Half8>>(args, c);
  max_pool<Half8>(args, c);
}

}  // namespace qpp
