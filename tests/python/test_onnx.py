# SPDX-License-Identifier: Apache-2.0
"""The importer of ONNX models: whole networks as exporters write them, and files that are none."""

from __future__ import annotations

import contextlib
import copy
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import (
    Error,
    FileError,
    ModelError,
    Session,
    UnsupportedError,
    UnsupportedModelError,
    from_onnx,
    reference,
)
from qppengine.model_file import serialize
from qppengine.operations.elementwise import UNARY

pytest.importorskip("onnx")
pytest.importorskip("torch")

import cases
import families
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qppengine.ir import Array


def model(
    *nodes: Any,
    x: Sequence[int | str | None] = (1, 2, 6, 8),
    opset: int = 17,
    **tensors: Any,
) -> Any:
    """Nodes from x to y, with constant tensors by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(proto)
    if not inferred.graph.output[0].type.tensor_type.HasField("shape"):  # which the checker wants
        inferred.graph.output[0].type.tensor_type.shape.dim.add()
    return inferred


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs or ("x",), [output], name=f"/{op}", **attributes)


def assert_as_in_onnx(proto: Any, *inputs: Array) -> None:
    """The graph and ONNX's own reference give the same results."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in proto.graph.input]
    expected = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    outputs = reference.run(from_onnx(proto), *inputs)
    for y, e in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(y.reshape(e.shape), e, rtol=1e-4, atol=1e-5)


def image(*shape: int) -> Array:
    return np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)


# ------------------------------------------------------------------------------------ exported nets


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", [name for name in cases.CASES if name not in cases.NOT_IN_ONNX])
def test_small_networks_compute_what_they_do_in_torch(name: str) -> None:
    module = cases.network(name, tail=name in cases.BLOCKS)
    x = cases.images(1)[0]
    # In each operator set that the exporter has; all have to mean the same.
    opset = 13 + sorted(cases.CASES).index(name) % 8
    graph = from_onnx(cases.to_onnx(module, torch.from_numpy(x), opset=opset))
    y, expected = reference.run(graph, x)[0], cases.expected(module, x)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


# The exporter does not write VGG's pool of uneven windows.
@pytest.mark.parametrize("name", [name for name in families.FAMILIES if name != "VGG"])
def test_families_of_networks_compute_what_they_do_in_torch(name: str) -> None:
    module, x = families.network(name), torch.rand(1, 3, 64, 64)
    graph = from_onnx(cases.to_onnx(module, x))
    with torch.no_grad():
        expected = module(x)
    expected = expected if isinstance(expected, (tuple, list)) else (expected,)
    for y, e in zip(reference.run(graph, x.numpy()), expected, strict=True):
        np.testing.assert_allclose(y.reshape(e.shape), e.numpy(), rtol=1e-3, atol=1e-4)


class Head(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x: Any) -> Any:
        y = self.stem(x)
        y = torch.relu(y + self.body(y))
        up = nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear")
        y = nn.functional.avg_pool2d(up, up.shape[2] // 2)
        return self.fc(y.view(y.size(0), -1))


def test_shape_computations_of_exporters_are_folded() -> None:
    module = Head().eval()
    x = torch.rand(1, 3, 8, 8)
    data = cases.to_onnx(module, x, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    proto = onnx.load_model_from_string(data)
    assert {"Shape", "Gather"} <= {node.op_type for node in proto.graph.node}
    graph = from_onnx(proto)
    assert graph.shapes["x"] == (None, 3, 8, 8)
    assert [node.name for node in graph.nodes] == [
        "stem.0",
        "body",
        "Resize",
        "AveragePool",
        "fc",
    ]
    x = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    y = reference.run(graph, x.numpy())[0]
    np.testing.assert_allclose(y[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)


class Fusion(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 4, 1)

    def forward(self, x: Any) -> Any:
        x = self.fine(x)
        up = nn.functional.interpolate(self.coarse(x), size=x.shape[2:], mode="bilinear")
        return torch.relu(x + up)


def test_images_of_open_size_are_resized_to_that_of_others() -> None:
    module = Fusion().eval()
    axes = {"x": {0: "batch", 2: "height", 3: "width"}}
    x = torch.rand(1, 3, 16, 16)
    graph = from_onnx(cases.to_onnx(module, x, input_names=["x"], dynamic_axes=axes))
    assert graph.shapes["x"] == (None, 3, None, None)
    x = torch.rand(2, 3, 24, 32)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(reference.run(graph, x.numpy())[0], expected, rtol=1e-4, atol=1e-5)


def test_scopes_of_the_newer_exporter_name_the_nodes() -> None:
    conv = node("Conv", "x", "w")
    conv.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'layers', 'layers.0', 'conv2d']"
    )
    graph = from_onnx(model(conv, w=image(4, 2, 1, 1)))
    assert [node.name for node in graph.nodes] == ["layers.0"]


def test_a_path_bytes_and_a_model_are_the_same(tmp_path: Path) -> None:
    proto = model(node("Conv", "x", "w"), w=image(4, 2, 3, 3))
    path = tmp_path / "a.onnx"
    onnx.save(
        copy.deepcopy(proto), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    x = image(1, 2, 6, 8)
    expected = reference.run(from_onnx(proto), x)[0]
    for source in (path, str(path), proto.SerializeToString()):
        assert np.array_equal(reference.run(from_onnx(source, "net"), x)[0], expected)
    assert from_onnx(path, "net").name == "net"
    with pytest.raises(ModelError, match="a file of their own"):
        from_onnx(path.read_bytes())
    (tmp_path / "weights").unlink()
    with pytest.raises(ModelError, match="weights"):
        from_onnx(path)


# --------------------------------------------------------------------------------- single operators


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([node("Conv", "x", "w", auto_pad="SAME_LOWER")], {"w": image(4, 2, 3, 5)}),
        ([node("Conv", "x", "w", auto_pad="VALID")], {"w": image(4, 2, 3, 5)}),
        ([node("Clip", "x", "", "high")], {"high": np.float32(0.5)}),
        ([node("Clip", "x", "low", "high")], {"low": np.float32(-1), "high": np.float32(0.5)}),
        ([node("PRelu", "x", "slope")], {"slope": image(2, 1, 1)}),
        (
            [node("Flatten", output="f"), node("Gemm", "f", "b", "c", alpha=0.5, beta=2.0)],
            {"b": image(96, 3), "c": image(1, 3)},
        ),
        ([node("Flatten", output="f"), node("MatMul", "f", "b")], {"b": image(96, 3)}),
        (
            [node("Reshape", "x", "shape", output="f"), node("MatMul", "f", "b")],
            {"shape": np.array([1, -1]), "b": image(96, 3)},
        ),
        (
            [
                node("Transpose", output="t", perm=[0, 2, 3, 1]),
                node("Relu", "t", output="r"),
                node("Transpose", "r", perm=[0, 3, 1, 2]),
            ],
            {},
        ),
        ([node("ReduceMean", axes=[2, 3], keepdims=0)], {}),
        (
            [
                node("GlobalAveragePool", output="g"),
                node("Squeeze", "g", "axes", output="s"),
                node("Unsqueeze", "s", "axes", output="u"),
                node("Mul", "u", "x"),
            ],
            {"axes": np.array([2, 3])},
        ),
        (
            [node("Resize", "x", "", "scales", mode="nearest")],
            {"scales": np.array([1, 1, 3, 2], np.float32)},
        ),
        (
            [node("Resize", "x", "", "", "sizes", mode="linear")],
            {"sizes": np.array([1, 2, 9, 5])},
        ),
    ],
)
def test_forms_of_operators(nodes: list[Any], tensors: Mapping[str, Any]) -> None:
    assert_as_in_onnx(model(*nodes, **tensors), image(1, 2, 6, 8))


UNARY_NODES = [
    node(source.target.removeprefix("onnx."), **source.requires)
    for schema in UNARY
    for source in schema.sources
    if source.target.startswith("onnx.") and not source.arguments
]


@pytest.mark.parametrize("operator", [*UNARY_NODES, node("Elu", alpha=0.3), node("Gelu")])
def test_unary_activations(operator: Any) -> None:
    assert_as_in_onnx(model(operator, opset=20), image(1, 2, 6, 8))


@pytest.mark.parametrize(
    "exponent",
    [*map(np.float32, (0.0, 0.5, 1.0, 2.0, 3.0, -1.5)), np.int64(3), np.array([-2], np.int32)],
)
def test_powers_of_positive_numbers(exponent: Any) -> None:
    powers = model(node("Pow", "x", "exponent"), exponent=exponent)
    assert_as_in_onnx(powers, np.abs(image(1, 2, 6, 8)) + np.float32(0.1))


def test_tensors_of_fewer_dimensions_get_more() -> None:
    proto = model(node("Conv", "x", "w", strides=[2], pads=[1, 1]), x=(1, 2, 9), w=image(4, 2, 3))
    graph = from_onnx(proto)
    assert graph.shapes["x"] == (1, 2, 1, 9)
    assert graph.shapes[graph.outputs[0]] == (1, 4, 1, 5)


def test_half_precision_weights_and_inputs_are_taken() -> None:
    proto = model(node("Conv", "x", "w"), w=image(4, 2, 3, 3).astype(np.float16))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert reference.run(from_onnx(proto), image(1, 2, 6, 8))[0].dtype == np.float32


def network(nodes: Sequence[Any], outputs: Sequence[str], **tensors: Any) -> Any:
    """A model of nodes that makes outputs of these names."""
    proto = model(*nodes, **tensors)
    del proto.graph.output[:]
    proto.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    return proto


def test_inputs_and_outputs_keep_their_names() -> None:
    """Those that passes merge into others, that other nodes are called, that are other names."""
    weight = image(4, 2, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "/logits/Conv"),
        helper.make_node("Relu", ["c"], ["activated"], "/act/Relu"),
        helper.make_node("GlobalAveragePool", ["activated"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
        helper.make_node("Identity", ["activated"], ["again"]),
        helper.make_node("Identity", ["x"], ["copy"]),
        helper.make_node("Dropout", ["logits"], ["Conv"]),
    ]
    outputs = ("logits", "activated", "again", "copy", "Conv", "x")
    graph = from_onnx(network(nodes, outputs, w=weight))
    assert graph.outputs == outputs
    assert [node.name for node in graph.nodes[:2]] == ["logits", "GlobalAveragePool"]
    x = image(1, 2, 6, 8)
    y = np.maximum(np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x), 0)
    mean = y.mean((2, 3), keepdims=True)
    session = Session(serialize(graph), "fp16")
    for name, expected in zip(outputs, (mean, y, y, x, mean, x), strict=True):
        np.testing.assert_allclose(session.run(x, outputs=name), expected, rtol=0.01, atol=0.01)
        again = reference.run(graph, x)[outputs.index(name)]
        np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------- refused models


def test_all_problems_are_listed_with_their_nodes() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", dilations=[1, 1]),
        helper.make_node("LRN", ["a"], ["b"], "second", size=3),
        helper.make_node("Resize", ["b", "", "s"], ["c"], "", mode="cubic"),
        helper.make_node("Mul", ["c", "two"], ["d"], "behind"),
        helper.make_node("Fancy", ["d"], ["y"], "last", domain="com.example"),
    ]
    scales, two = np.array([1, 1, 2, 2], np.float32), np.float32(2)
    proto = model(*nodes, w=image(2, 2, 3, 3), s=scales, two=two)
    with pytest.raises(UnsupportedModelError) as info:
        from_onnx(proto)
    assert info.value.problems == (
        "second: onnx.LRN: not supported; closest supported form: BatchNormalization",
        "the node of 'c': onnx.Resize: mode=cubic; closest supported form: linear",
        "last: com.example.Fancy: not supported",
    )


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (model(node("Relu"), x=(1, 2, 3, 4, 5)), "5 dimensions; closest supported form"),
        (model(node("Transpose", perm=[1, 0, 2, 3])), "output 'y': a transposed image"),
        (model(node("Relu"), x=("n", "c", 2, 2)), "channels, must be known"),
        (
            model(node("Pow", "x", "e"), e=image(2, 1, 1)),
            r"exponents \[2, 1, 1\]; closest supported",
        ),
        (model(node("Relu", "c"), c=image(1, 2)), "output 'y' does not depend on an input"),
        (
            model(node("Transpose", perm=[0, 2, 3, 1]), x=(1, 2, "h", "w")),
            "output 'y': a transposed image with dynamic dimensions",
        ),
    ],
)
def test_refused(proto: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        from_onnx(proto)


# ----------------------------------------------------------------------------------- no ONNX models


def test_another_operator_set_is_refused() -> None:
    for opset in (11, 12):
        with pytest.raises(UnsupportedError, match=f"from 13 to 28, got {opset}"):
            from_onnx(model(node("Relu"), opset=opset))
    with pytest.raises(UnsupportedError, match="got int"):
        from_onnx(3)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        from_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (onnx.ModelProto(), "not a readable ONNX model"),
        (model(node("Relu", "z"), node("Relu", "y", output="z")), "topologically sorted"),
        (model(node("Conv", "x", "w"), w=image(4, 3, 3, 3)), "takes 3 channels"),
        (model(node("Conv", "x", "w"), w=np.full((4, 2, 1, 1), np.inf, np.float32)), "infinity"),
        (model(node("Concat", "x", axis=7)), "dimension 7"),
    ],
)
def test_malformed(proto: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_onnx(proto)


def test_a_small_file_does_not_ask_for_all_memory() -> None:
    shape = np.array([2**20, 2**20])
    nodes = [node("ConstantOfShape", "shape", output="c"), node("Add", "x", "c")]
    with pytest.raises(ModelError, match=r"/ConstantOfShape: .* the limit computed_bytes"):
        from_onnx(model(*nodes, shape=shape))


def test_weights_shorter_than_told() -> None:
    proto = model(node("Conv", "x", "w"), w=image(4, 2, 3, 3))
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    with pytest.raises(ModelError):
        from_onnx(proto)


def test_damaged_bytes_are_an_error_of_the_package_or_a_graph() -> None:
    nodes = [node("Conv", "x", "w", output="c", pads=[1, 1, 1, 1]), node("Relu", "c")]
    data = model(*nodes, w=image(1, 2, 1, 1)).SerializeToString()
    for size in range(0, len(data), 3):
        with pytest.raises(Error):
            from_onnx(data[:size])
    rng = np.random.default_rng(6)
    for _ in range(150):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(Error):
            from_onnx(bytes(flipped))


def test_a_missing_package_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="onnx"):
        from_onnx(b"")
