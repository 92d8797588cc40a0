# SPDX-License-Identifier: Apache-2.0
"""ONNX's own test suite of single nodes, run by the engine in fp16.

Every case whose operators all have importers either passes or is excluded with a reason, and no
excluded case may pass.
"""

from __future__ import annotations

import warnings
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine.importers.program import AXES
from qppengine.importers.registry import _IMPORTERS
from qppengine.model_file import serialize

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qppengine.ir import Array

# Inputs of a case are images if its operators are among these; else only the first input is one,
# and the others are weights.
ALL_IMAGES = {"Add", "Concat", "Div", "Mul", "Sub"}

EXCLUDED = {
    "other numbers than float": [
        *(f"test_{op}_*int*" for op in ("add", "div", "mul", "sub")),
        "test_cast*FLOAT*_to_FLOAT[48]*",
        "test_cast*FLOAT[48]*_to_*",
        "test_cast*INT*",
        "test_clip_default_int8_*",
        "test_edge_pad",
        "test_identity_opt",
        "test_identity_sequence",
        "test_maxpool_2d_uint8",
        "test_pow_types_*int*",
        "test_reduce_max_*bool*",
        "test_reflect_pad",
        "test_wrap_pad",
    ],
    "volumes, [N, C, D, H, W]": [
        "test_averagepool_3d_*",
        "test_convtranspose_3d",
        "test_maxpool_3d_*",
    ],
    "broadcasting of other tensors than one number a channel": [
        "test_*_bcast",
        "test_gemm_default_matrix_bias",
        "test_prelu_*",
    ],
    "products of two tensors that are no matrix": ["test_matmul_[134]d*"],
    "the rows of a product as columns": ["test_gemm_transposeA", "test_gemm_all_attributes"],
    "powers with several exponents": ["test_pow", "test_pow_bcast_array", "test_pow_example"],
    "division by a tensor": ["test_div", "test_div_example"],
    "the batch changes its size or place": [
        "test_argmax_default_axis_*",
        "test_concat_[23]d_axis_0",
        "test_concat_2d_axis_negative_2",
        "test_concat_3d_axis_negative_3",
        "test_flatten_axis0",
        "test_flatten_axis[23]",
        "test_flatten_negative_axis[124]",
        "test_logsoftmax_axis_0",
        "test_reduce_m*_default_axes_*",
        "test_reshape_allowzero_reordered",
        "test_reshape_negative_extended_dims",
        "test_reshape_one_dim",
        "test_reshape_reordered_all_dims",
        "test_slice",
        "test_slice_default_*",
        "test_slice_neg*_*",
        "test_softmax_axis_0",
        "test_transpose_all_permutations_[2345]",
        "test_transpose_default",
        "test_unsqueeze_axis_0",
    ],
    "tensors without elements": [
        "test_reduce_max_empty_set",
        "test_slice_start_out_of_bounds",
        "test_split_zero_size_*",
    ],
    "maxima over one of the axes, or the last of equal ones": [
        "test_argmax_*_select_last_index",
        "test_argmax_negative_axis_keepdims_random",
        "test_reduce_max_*keepdims_*",
    ],
    "windows wholly in the padding": ["test_*pool_2d_pads*"],
    "means of dilated windows": ["test_averagepool_2d_dilations"],
    "masks and indices": ["test_dropout_default_mask*", "test_maxpool_with_argmax_*"],
    "training": ["test_batchnorm_*_training_mode", "test_training_dropout*"],
    "operator sets before 13": ["test_dropout_*_old"],
    "transposed convolution with two strides or a given output": [
        "test_convtranspose_kernel_shape",
        "test_convtranspose_output_shape",
        "test_convtranspose_pad*",
    ],
    "padding by other numbers than zero": ["test_constant_pad*"],
    "cubic or antialiased resizing": ["test_resize_*_cubic*", "test_resize_*_antialias"],
    "coordinates that PyTorch does not know": [
        "test_resize_*_half_pixel_symmetric",
        "test_resize_downsample_scales_linear_align_corners",
        "test_resize_downsample_sizes_linear_pytorch_half_pixel",
        "test_resize_downsample_sizes_nearest",
        "test_resize_downsample_sizes_nearest_not_smaller",
        "test_resize_tf_crop_and_resize*",
        "test_resize_upsample_sizes_nearest_ceil_half_pixel",
        "test_resize_upsample_sizes_nearest_floor_align_corners",
        "test_resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric",
    ],
    "numbers that are one in fp16": ["test_*softmax_large_number"],
}


def test_node_cases(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {pattern: reason for reason, patterns in EXCLUDED.items() for pattern in patterns}
    passed: list[str] = []
    problems: list[str] = []
    unused = set(reasons)
    excluded = 0
    for case in cases():
        matching = [pattern for pattern in reasons if fnmatch(case.name, pattern)]
        unused.difference_update(matching)
        excluded += bool(matching)
        try:
            check(case)
        except (qe.Error, AssertionError) as error:
            if not matching:
                problems.append(f"{case.name}: {error}")
        else:
            passed.append(case.name)
            if matching:
                problems.append(f"{case.name}: passes, but is excluded by {matching}")
    problems += [f"{pattern}: excludes nothing" for pattern in sorted(unused)]
    with capsys.disabled():
        print(f"\n{len(passed)} of ONNX's node cases pass, {excluded} are excluded")
    assert not problems, "\n".join(problems)


def cases() -> Iterator[Any]:
    """The cases of the operators that have importers."""
    from onnx.backend.test.case.node import collect_testcases

    known = {target.removeprefix("onnx.") for target in _IMPORTERS if target.startswith("onnx.")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # computing them overflows on purpose
        for case in collect_testcases(None):
            if {node.op_type for node in case.model.graph.node} <= known:
                yield case


def check(case: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = (
        [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x) for x in xs]
        for xs in case.data_sets[0]
    )
    only_first = ALL_IMAGES.isdisjoint(node.op_type for node in model.graph.node)
    count = 1 if only_first else len(inputs)
    for info, array in zip(model.graph.input[count:], inputs[count:], strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array, info.name))
    session = qe.Session(serialize(qe.from_onnx(model)), "fp16")
    results = session.run(*map(image, inputs[:count]))
    results = results if isinstance(results, tuple) else (results,)
    for y, expected in zip(results, outputs, strict=True):
        expected = expected.astype(np.float32)
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1)
        np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=0, atol=2e-3 * scale)


def image(x: Any) -> Array:
    """A tensor with the dimensions that the engine gives it."""
    shape = [1] * 4
    for axis, size in zip(AXES[x.ndim], x.shape, strict=True):
        shape[axis] = size
    return np.ascontiguousarray(x.reshape(shape), np.float32)
