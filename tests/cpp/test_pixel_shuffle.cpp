// SPDX-License-Identifier: Apache-2.0

#include <doctest/doctest.h>

#include "network/qp_table.h"
#include "ops/layout.h"
#include "ops/pixel_shuffle.h"
#include "support.h"

namespace qpp {

TEST_CASE("shuffled pixels are exported as they are stored") {
  QpTable table(0, 0);
  test::Random random(3);
  for (const std::int64_t factor : {1, 2, 3, 4, 5}) {
    for (const std::int64_t channels : {1, 3}) {
      CAPTURE(factor);
      CAPTURE(channels);
      const Shape small{2, 3, 5, channels * factor * factor};
      std::vector<half> data(static_cast<std::size_t>(small.elements()));
      for (half& value : data) value = to_half(random.next());
      const TensorView input{.data = data.data(), .dtype = DType::f16, .shape = small};
      PixelShuffle op("p", factor, /*inverse=*/false, DType::f16);
      CHECK(op.writes_output_directly());
      const Shape large = op.prepare(std::span(&small, 1), 1);
      std::vector<half> stored(static_cast<std::size_t>(large.elements()));
      const TensorView output{.data = stored.data(), .dtype = DType::f16, .shape = large};
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        RunState state = table.state(pool);
        RunArgs args{.inputs = std::span(&input, 1), .output = output};
        op.run(args, state);
        std::vector<float> expected(static_cast<std::size_t>(large.pixels() * channels));
        export_nchw(output, expected.data(), pool);
        std::vector<float> exported(expected.size());
        args.direct_output = exported.data();
        op.run(args, state);
        CHECK(exported == expected);
      }
    }
  }
}

}  // namespace qpp
