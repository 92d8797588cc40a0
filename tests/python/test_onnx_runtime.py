# SPDX-License-Identifier: Apache-2.0
"""Random forms of ONNX operators: imported as ONNX Runtime computes them, or refused."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import Error, from_onnx, reference

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from qppengine.ir import Array

CASES = 60
# The least number of these cases that are imported, not refused.
LEAST = {"Slice": 3, "Resize": 10, "AveragePool": 20, "MaxPool": 20, "ConvTranspose": 20}

# An operator's attributes, and its constants by input; missing ones are "".
Form = tuple[dict[str, Any], dict[str, Any]]


def array(*shape: int) -> Array:
    return np.asarray(np.random.default_rng(sum(shape)).normal(0, 1, shape), np.float32)


def window(rng: Random, kernel: list[int]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"strides": [rng.randint(1, 3)] * 2}
    if rng.random() < 0.3:
        attributes["dilations"] = [rng.randint(1, 2), rng.randint(1, 2)]
    if rng.random() < 0.3:
        attributes["auto_pad"] = rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    else:
        attributes["pads"] = [rng.randint(0, kernel[side % 2] // 2) for side in range(4)]
    return attributes


def pool(rng: Random, shape: list[int], opset: int) -> Form:
    kernel = [rng.randint(1, 4), rng.randint(1, 4)]
    attributes = {"kernel_shape": kernel, "ceil_mode": rng.randint(0, 1), **window(rng, kernel)}
    return attributes, {}


def average_pool(rng: Random, shape: list[int], opset: int) -> Form:
    attributes, _ = pool(rng, shape, opset)
    if opset < 19:
        attributes.pop("dilations", None)
    return {**attributes, "count_include_pad": rng.randint(0, 1)}, {}


def conv_transpose(rng: Random, shape: list[int], opset: int) -> Form:
    kernel = [rng.randint(1, 4), rng.randint(1, 4)]
    attributes = window(rng, kernel)
    if rng.random() < 0.3:
        attributes["output_padding"] = [rng.randint(0, 1), 0]
    groups = rng.choice((1, shape[1]))
    return {**attributes, "group": groups}, {"w": array(shape[1], 2, *kernel)}


def resize(rng: Random, shape: list[int], opset: int) -> Form:
    attributes: dict[str, Any] = {
        "mode": rng.choice(("nearest", "linear")),
        "coordinate_transformation_mode": rng.choice(
            ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        ),
    }
    if attributes["mode"] == "nearest":
        attributes["nearest_mode"] = rng.choice(
            ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        )
    if rng.random() < 0.5:
        scales = [1, 1, *(rng.choice((2, 0.5, 3, 1.5, 0.7)) for _ in range(2))]
        return attributes, {"roi": "", "scales": np.array(scales, np.float32)}
    sizes = [*shape[:2], rng.randint(1, 20), rng.randint(1, 20)]
    if opset >= 18:
        attributes["keep_aspect_ratio_policy"] = rng.choice(("stretch", "not_larger"))
        attributes["axes"], sizes = [3, 2], sizes[2:]
    return attributes, {"roi": "", "scales": "", "sizes": np.array(sizes)}


def slice_(rng: Random, shape: list[int], opset: int) -> Form:
    axes = rng.sample((1, 2, 3, -1), rng.randint(1, 2))
    numbers = {
        "starts": [rng.choice((0, 1, -2, -100)) for _ in axes],
        "ends": [rng.choice((2**31 - 1, 2**63 - 1, -1, 5)) for _ in axes],
        "axes": axes,
        "steps": [rng.choice((1, 1, 2, -1)) for _ in axes],
    }
    return {}, {name: np.array(value, np.int64) for name, value in numbers.items()}


def pad(rng: Random, shape: list[int], opset: int) -> Form:
    pads = [0, 0, rng.randint(-1, 2), rng.randint(0, 2), 0, 0, rng.randint(0, 2), 0]
    return {"mode": rng.choice(("constant", "reflect", "edge"))}, {"pads": np.array(pads)}


def batch_normalization(rng: Random, shape: list[int], opset: int) -> Form:
    vectors = {name: array(shape[1]) for name in ("scale", "B", "mean")}
    return {"epsilon": rng.choice((1e-5, 0.1))}, {**vectors, "var": np.abs(array(shape[1])) + 0.1}


def prelu(rng: Random, shape: list[int], opset: int) -> Form:
    slopes = rng.choice(((shape[1], 1, 1), (1,), (shape[3],), (shape[1],), (1, shape[1], 1, 1)))
    return {}, {"slope": array(*slopes)}


def clip(rng: Random, shape: list[int], opset: int) -> Form:
    low, high = (rng.choice(("", np.float32(rng.gauss(0, 1)))) for _ in range(2))
    return {}, {"min": low, "max": high}


FORMS: dict[str, Callable[[Random, list[int], int], Form]] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Clip": clip,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool,
    "PRelu": prelu,
    "Pad": pad,
    "Resize": resize,
    "Slice": slice_,
}


@pytest.mark.parametrize("op", FORMS)
def test_forms_are_computed_as_in_onnx_runtime_or_refused(op: str) -> None:
    compared = 0
    for seed in range(CASES):
        rng = Random(f"{op} {seed}")
        shape, opset = [rng.randint(1, 2), *(rng.randint(2, 9) for _ in range(3))], 13 + seed % 10
        attributes, inputs = FORMS[op](rng, shape, opset)
        names = [
            "x",
            *(name if isinstance(x, np.ndarray | np.generic) else "" for name, x in inputs.items()),
        ]
        tensors = [
            numpy_helper.from_array(np.asarray(x), name)
            for name, x in inputs.items()
            if name in names
        ]
        graph = helper.make_graph(
            [helper.make_node(op, names, ["y"], **attributes)],
            "form",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_empty_tensor_value_info("y")],
            tensors,
        )
        imports = [helper.make_opsetid("", opset)]
        data = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
        x = array(*shape)
        try:
            (expected,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
            (y,) = reference.run(from_onnx(data), x)
        except Error:
            continue
        except Exception as error:  # of ONNX Runtime, which has no class for all of its errors
            if "onnxruntime" not in type(error).__module__:
                raise
            continue
        # ONNX Runtime copies an image that keeps its size, whatever the scale.
        if op != "Resize" or expected.shape != x.shape:
            np.testing.assert_allclose(
                y, expected, rtol=1e-3, atol=1e-4, err_msg=f"{op} {opset} {attributes} {inputs}"
            )
            compared += 1
    assert compared >= LEAST.get(op, CASES // 4)
