// SPDX-License-Identifier: Apache-2.0
#include "ops/rearrange.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <set>
#include <utility>

#include "base/json_field.h"

namespace qpp {
namespace {

/// Copies elements from where `sources` say; the rest of a pixel becomes zero.
template <typename T>
void copy(const TensorView& input, const TensorView& output,
          const std::vector<std::int32_t>& sources, ThreadPool& pool) {
  const std::int64_t pixels = output.shape.height * output.shape.width;
  const std::int64_t image = input.shape.height * input.shape.width * input.shape.stride();
  const std::int64_t channels = output.shape.channels;
  pool.parallel_for(output.shape.pixels(),
                    [&](std::int64_t begin, std::int64_t end, int /*thread*/) {
                      for (std::int64_t pixel = begin; pixel < end; ++pixel) {
                        const T* src = static_cast<const T*>(input.data) + pixel / pixels * image;
                        const std::int32_t* source = sources.data() + pixel % pixels * channels;
                        T* dst = static_cast<T*>(output.data) + pixel * output.shape.stride();
                        for (std::int64_t c = 0; c < channels; ++c) dst[c] = src[source[c]];
                        std::fill(dst + channels, dst + output.shape.stride(), T{});
                      }
                    });
}

}  // namespace

Rearrange::Rearrange(RearrangeSpec spec, DType dtype) : spec_(std::move(spec)), dtype_(dtype) {}

std::string Rearrange::kind() const { return spec_.view.size() == 1 ? "flatten" : "rearrange"; }

std::vector<std::int64_t> Rearrange::sizes_of(const Shape& input) const {
  const std::int64_t elements = input.channels * input.height * input.width;
  if (spec_.view.size() == 1) return {spec_.view[0].value_or(elements)};
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i < spec_.view.size(); ++i) {
    const bool is_last = i + 1 == spec_.view.size();
    sizes.push_back(spec_.view[i].value_or(is_last ? input.width : input.height));
  }
  return sizes;
}

Shape Rearrange::prepare(std::span<const Shape> inputs, int /*threads*/) {
  const Shape& input = inputs[0];
  const std::int64_t pixels = input.height * input.width;
  const std::int64_t elements = input.channels * pixels;
  std::vector<std::int64_t> sizes = sizes_of(input);
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) product = std::min(product, elements + 1) * size;
  QPP_CHECK(product == elements, ShapeError, "node '", spec_.name, "' (", kind(), "): the input ",
            to_string(input), " has another number of elements than the view");
  QPP_CHECK(pixels * input.stride() <= std::numeric_limits<std::int32_t>::max(), UnsupportedError,
            "node '", spec_.name, "' (", kind(), "): the input ", to_string(input),
            " is too large");

  // Sizes and distances of the output's dimensions.
  std::vector<std::int64_t> steps(sizes.size(), 1);
  for (std::size_t i = sizes.size() - 1; i > 0; --i) steps[i - 1] = steps[i] * sizes[i];
  std::vector<std::int64_t> out_sizes;
  std::vector<std::int64_t> out_steps;
  for (const int index : spec_.order) {
    out_sizes.push_back(sizes[static_cast<std::size_t>(index)]);
    out_steps.push_back(steps[static_cast<std::size_t>(index)]);
  }
  while (out_sizes.size() < 3) {
    out_sizes.push_back(1);
    out_steps.push_back(0);
  }
  const std::size_t rank = out_sizes.size();
  output_ = {.batch = input.batch,
             .height = out_sizes[rank - 2],
             .width = out_sizes[rank - 1],
             .channels = elements / (out_sizes[rank - 2] * out_sizes[rank - 1])};

  sources_.resize(static_cast<std::size_t>(elements));
  std::vector<std::int64_t> place(rank, 0);
  for (std::int64_t i = 0; i < elements; ++i) {  // in the order of the output's CHW
    std::int64_t source = 0;
    for (std::size_t axis = 0; axis < rank; ++axis) source += place[axis] * out_steps[axis];
    const std::int64_t out_pixels = output_.height * output_.width;
    sources_[static_cast<std::size_t>(i % out_pixels * output_.channels + i / out_pixels)] =
        static_cast<std::int32_t>(source % pixels * input.stride() + source / pixels);
    for (std::size_t axis = rank; axis-- > 0;) {
      if (++place[axis] < out_sizes[axis]) break;
      place[axis] = 0;
    }
  }
  return output_;
}

void Rearrange::run(const RunArgs& args, RunState& state) const {
  if (dtype_ == DType::qai8) {
    copy<std::int8_t>(args.inputs[0], args.output, sources_, state.pool);
  } else {
    copy<half>(args.inputs[0], args.output, sources_, state.pool);
  }
}

namespace {

RearrangeSpec parse_rearrange(const NodeFields& node) {
  constexpr std::size_t kMaxDimensions = 6;
  const Field& attributes = node.attributes;
  attributes.only({"view", "order"});
  RearrangeSpec spec{.name = node.name, .view = {}, .order = {}};
  const std::vector<Field> view = attributes["view"].list();
  const std::size_t rank = view.size();
  QPP_CHECK(rank >= 1 && rank <= kMaxDimensions, ModelError, node.where, ": expected 1 to ",
            kMaxDimensions, " dimensions, got ", rank);
  std::set<std::int64_t> places;
  for (const Field& index : attributes["order"].list(rank)) {
    const std::int64_t place = index.integer(0, static_cast<std::int64_t>(rank) - 1);
    spec.order.push_back(static_cast<int>(place));
    QPP_CHECK(places.insert(place).second, ModelError, index.where(), ": the dimension ", place,
              " occurs twice");
  }
  const bool dynamic = view.back().is_null();
  for (std::size_t i = 0; i < rank; ++i) {
    QPP_CHECK(view[i].is_null() == (dynamic && i + 2 >= rank && rank > 2), ModelError,
              view[i].where(), ": expected sizes, of which the last two may be null");
    spec.view.emplace_back();
    if (!dynamic || i + 2 < rank) spec.view.back() = view[i].integer(1, node.limits.dimension);
  }
  return spec;
}

RearrangeSpec parse_flatten(const NodeFields& node) {
  node.expect_no_attributes();
  return {.name = node.name, .view = {std::nullopt}, .order = {0}};
}

}  // namespace

Int8Trait RearrangeSpec::int8_trait(const NodeSignature& /*node*/) {
  return {.role = Int8Role::shares_qparams};
}

Operation RearrangeSpec::parse(const NodeFields& node) {
  node.expect_no_tensors();
  RearrangeSpec spec = node.op == "flatten" ? parse_flatten(node) : parse_rearrange(node);
  return {.make = [spec = std::move(spec)](const OpTypes& types, const OpContext& /*context*/) {
    return std::make_unique<Rearrange>(spec, types.output.dtype);
  }};
}

}  // namespace qpp
