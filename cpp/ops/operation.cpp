// SPDX-License-Identifier: Apache-2.0
#include "ops/operation.h"

#include <map>

#include "base/json_field.h"
#include "ops/activation.h"
#include "ops/channel_reduction.h"
#include "ops/concat.h"
#include "ops/conv2d_spec.h"
#include "ops/elementwise.h"
#include "ops/pixel_shuffle.h"
#include "ops/pool.h"
#include "ops/rearrange.h"
#include "ops/resize.h"
#include "ops/slice_pad.h"

namespace qpp {
namespace {

template <typename Family>
OpSchema schema_of() {
  return {.inputs = Family::kInputs, .int8_trait = &Family::int8_trait, .parse = &Family::parse};
}

}  // namespace

const Tensor& NodeFields::tensor(const char* role) const {
  return constants.find(tensors[role].string(), where);
}

void NodeFields::expect_no_attributes() const { attributes.only({}); }

void NodeFields::expect_no_tensors() const { tensors.only({}); }

const OpSchema* find_op_schema(const std::string& op) {
  static const std::map<std::string, OpSchema> kSchemas = {
#define QPP_OP(name, family) {#name, schema_of<family>()},
#include "ops/op_table.inc"
  };
  const auto found = kSchemas.find(op);
  return found == kSchemas.end() ? nullptr : &found->second;
}

}  // namespace qpp
