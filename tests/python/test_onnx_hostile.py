# SPDX-License-Identifier: Apache-2.0
"""ONNX files that nobody vouches for: refused with an error of the package, at little cost."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import Error, FileError, Limits, ModelError, UnsupportedModelError, from_onnx

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

node = helper.make_node


def image_info(name: str, shape: Sequence[Any] | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(
    nodes: Sequence[Any],
    tensors: dict[str, Any] | None = None,
    shape: Sequence[Any] = (1, 3, 13, 18),
    functions: Sequence[Any] = (),
    opset: int = 17,
) -> Any:
    """Nodes from x to y, without any check or inference of ONNX's."""
    constants = [numpy_helper.from_array(np.asarray(a), key) for key, a in (tensors or {}).items()]
    graph = helper.make_graph(
        nodes, "small", [image_info("x", shape)], [image_info("y", None)], constants
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


RELU = node("Relu", ["x"], ["y"])
CONV = {"w": ones(4, 3, 3, 3)}


@pytest.mark.parametrize(
    ("proto", "problem"),
    [
        (model([node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 255])], CONV), "contradicts"),
        (model([node("Mul", ["x", "c"], ["y"])], {"c": np.nan * ones(1)}), "holds NaN"),
        (model([node("Conv", ["x", "w"], ["y"], auto_pad="SAME")], CONV), "auto_pad='SAME'"),
        (model([node("Conv", ["x", "w"], ["y"], pads=[1, 1])], CONV), "belong to 2 dimensions"),
        (model([node("Conv", ["x", "w"], ["y"], strides=[0, 1])], CONV), "must be positive"),
        (model([node("Conv", ["x", "w"], ["y"], strides=[2**62, 2**62])], CONV), "limit window"),
        (model([node("Conv", ["x", "w"], ["y"], dilations=[2**62, 1])], CONV), "limit window"),
        (model([node("Conv", ["x", "w"], ["y"], group=2**62)], CONV), "groups must divide"),
        (model([node("Conv", ["x", "w"], ["y"], fancy=1)], CONV), "no attribute 'fancy'"),
        (model([node("Conv", ["x", "w"], ["y"], group=1.0)], CONV), "no attribute 'group' of this"),
        (model([node("Conv", ["x"], ["y"])]), "expected 2 to 3 inputs"),
        (model([node("Conv", ["", "x"], ["y"])]), "the input 'X' is missing"),
        (model([node("Concat", ["x", "x"], ["y"])]), "the attribute 'axis' is missing"),
        (model([node("MaxPool", ["x"], ["y"], kernel_shape=[2**40, 1])]), "limit window"),
        (model([node("Relu", ["z"], ["y"]), node("Relu", ["y"], ["z"])]), "topologically sorted"),
        (model([RELU, RELU]), "defines 'y' a second time"),
        (model([RELU, node("Relu", ["y"], ["x"])]), "defines 'x' a second time"),
        (model([node("Relu", ["x"], ["z"])]), "output 'y' is not computed"),
        (model([RELU], shape=(1, 3, 0, 4)), "sizes of at least 1, or -1"),
        (model([RELU], shape=(1, 3, -7, 4)), "sizes of at least 1, or -1"),
        (
            model([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([1, -1, 5])}),
            "cannot be reshaped to",
        ),
        (
            model([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([-1, -1])}),
            "at most one -1",
        ),
        (model([node("Transpose", ["x"], ["y"], perm=[0, 1, 2, 2])]), "an order of 4 dimensions"),
        (model([node("Squeeze", ["x", "a"], ["y"])], {"a": np.array([1])}), "must have size 1"),
        (model([node("Split", ["x", "n"], ["y"])], {"n": np.array([2**62])}), "split="),
        (model([node("Gather", ["c", "i"], ["y"])], {"c": ones(2), "i": np.array(7)}), "beyond"),
        (model([node("Div", ["a", "b"], ["y"])], {"a": np.array(7), "b": np.array(0)}), "by zero"),
    ],
)
def test_malformed_models(proto: Any, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        from_onnx(proto.SerializeToString())


def cost_of(action: Callable[[], Any]) -> int:
    """The most bytes that Python and NumPy held meanwhile."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def int64(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


BOMBS = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["c"])], {"s": int64(2**16, 2**10)}),
    "Expand": ([node("Expand", ["o", "s"], ["c"])], {"o": ones(1), "s": int64(2**16, 2**10)}),
    "Tile": ([node("Tile", ["o", "s"], ["c"])], {"o": ones(8), "s": int64(2**24)}),
    "Range": (
        [node("Range", ["a", "b", "d"], ["c"])],
        {"a": np.int64(0), "b": np.int64(2**62), "d": np.int64(1)},
    ),
    "broadcasting": (
        [node("Mul", ["a", "b"], ["c"])],
        {"a": ones(2**13, 1), "b": ones(1, 2**13)},
    ),
    "Gather": (
        [node("Gather", ["a", "i"], ["c"])],
        {"a": ones(1, 2**13), "i": np.zeros(2**13, np.int64)},
    ),
    "Pad": ([node("Pad", ["a", "s"], ["c"])], {"a": ones(1), "s": int64(0, 2**28)}),
    "MatMul": (
        [node("MatMul", ["a", "b"], ["c"])],
        {"a": ones(2**13, 1), "b": ones(1, 2**13)},
    ),
    "Concat": ([node("Concat", ["a"] * 2000, ["c"], axis=0)], {"a": ones(2**15)}),
    "Concat, doubling": (
        [node("Identity", ["a"], ["c0"])]
        + [node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(40)]
        + [node("Identity", ["c40"], ["c"])],
        {"a": ones(8)},
    ),
    "Cast": (
        [node("ConstantOfShape", ["s"], ["d"]), node("Cast", ["d"], ["c"], to=TensorProto.DOUBLE)],
        {"s": int64(2**23 - 1)},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_constants_that_are_computed_are_bounded(name: str) -> None:
    nodes, tensors = BOMBS[name]
    data = model([*nodes, node("Add", ["x", "c"], ["y"])], tensors).SerializeToString()

    def refuse() -> None:
        with pytest.raises(ModelError, match="limit computed_bytes"):
            from_onnx(data)

    assert cost_of(refuse) < 2**26 + 8 * len(data)
    with pytest.raises(Error) as info:
        from_onnx(data, limits=Limits(computed_bytes=2**10))
    assert "pass limits=Limits(computed_bytes=...)" in str(info.value)


def test_what_no_output_needs_is_not_computed() -> None:
    nodes = [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(1000)]
    data = model([*nodes, RELU], {"s": int64(2**22)}).SerializeToString()
    assert cost_of(lambda: from_onnx(data)) < 2**24


def test_constants_that_nothing_reads_any_more_are_dropped() -> None:
    nodes = [node("ConstantOfShape", ["s"], ["c0"])]
    nodes += [node("Neg", [f"c{i}"], [f"c{i + 1}"]) for i in range(30)]
    nodes += [node("ReduceMax", ["c30"], ["m"], keepdims=0), node("Add", ["x", "m"], ["y"])]
    data = model(nodes, {"s": int64(2**20)}).SerializeToString()
    assert cost_of(lambda: from_onnx(data)) < 2**25


def function(name: str, *nodes: Any) -> Any:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, imports)


def test_functions_that_call_each_other_are_bounded() -> None:
    functions = [function("F0", node("Relu", ["a"], ["b"]))]
    for level in range(1, 12):
        chain = ["a", *(f"t{i}" for i in range(9)), "b"]
        calls = [
            node(f"F{level - 1}", [chain[i]], [chain[i + 1]], domain="local") for i in range(10)
        ]
        functions.append(function(f"F{level}", *calls))
    top = node("F11", ["x"], ["y"], domain="local")
    with pytest.raises(ModelError, match="exceeds the limit nodes = 20000"):
        from_onnx(model([top], functions=functions))
    endless = function("F", node("F", ["a"], ["b"], domain="local"))
    with pytest.raises(ModelError, match="exceeds the limit nesting = 64"):
        from_onnx(model([node("F", ["x"], ["y"], domain="local")], functions=[endless]))


def test_small_messages_that_take_much_memory_are_counted() -> None:
    """Two bytes each, from which protobuf makes a hundred."""
    proto = model([RELU])
    for tag in (b"\x0a\x00", b"\x6a\x00"):  # nodes and value_info
        body = proto.graph.SerializeToString() + tag * 2**21
        proto.ClearField("graph")
        head = proto.SerializeToString()
        length = len(body)
        varint = b""
        while length > 127:
            varint += bytes([length & 127 | 128])
            length >>= 7
        data = head + b"\x3a" + varint + bytes([length]) + body
        with pytest.raises(ModelError, match="exceeds the limit json_values"):
            from_onnx(data)


def test_subgraphs_are_refused() -> None:
    branch = helper.make_graph([node("Relu", ["x"], ["z"])], "b", [], [image_info("z", None)])
    condition = node("If", ["k"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(UnsupportedModelError, match=r"onnx\.If: not supported"):
        from_onnx(model([condition], {"k": np.array(True)}))


# ----------------------------------------------------------------------------------- external data


def with_weights_at(location: str, folder: Path, **entries: str) -> Path:
    """A model in `folder` whose weights are in another file."""
    proto = model([node("Conv", ["x", "w"], ["y"])], CONV)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


WEIGHTS = CONV["w"].tobytes()


@pytest.mark.parametrize(
    ("location", "entries", "problem"),
    [
        ("", {}, "expected one in its folder"),
        ("../weights", {}, "expected one in its folder"),
        ("inner/../../weights", {}, "expected one in its folder"),
        ("/etc/passwd", {}, "expected one in its folder"),
        ("link", {}, "expected one in its folder"),
        ("missing", {}, "No such file"),
        ("\0", {}, "null"),
        ("fifo", {}, "not a regular file"),
        (".", {}, "not a regular file"),
        ("short", {}, "which has 7"),
        ("weights", {"offset": "-4"}, "at -4 of"),
        ("weights", {"offset": "4"}, "at 4 of"),
        ("weights", {"offset": "x"}, "invalid literal"),
        ("weights", {"length": "8"}, "names 8"),
        ("weights", {"offset": str(2**70)}, "at 1180591620717411303424 of"),
    ],
)
def test_files_of_weights_that_are_refused(
    location: str, entries: dict[str, str], problem: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "weights", folder / "weights"):
        path.write_bytes(WEIGHTS)
    (folder / "short").write_bytes(b"weights")
    (folder / "link").symlink_to(tmp_path / "weights")
    os.mkfifo(folder / "fifo")
    with pytest.raises((FileError, ModelError), match=problem):
        from_onnx(with_weights_at(location, folder, **entries))


def test_an_unknown_mode_is_refused() -> None:
    shuffle = node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="DRC")
    with pytest.raises(UnsupportedModelError, match="mode=DRC"):
        from_onnx(model([shuffle], shape=(1, 4, 5, 6)))


def test_what_is_not_a_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(FileError, match="not a regular file"):
            from_onnx(path)
    with pytest.raises(FileError, match="null"):
        from_onnx("\0")


# -------------------------------------------------------------------------------------- forms of it


def test_a_size_of_minus_one_is_open() -> None:
    assert from_onnx(model([RELU], shape=(-1, 3, -1, "w"))).shapes["x"] == (None, 3, None, None)


def test_channels_last_with_open_sizes_says_what_to_do() -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Relu", ["t"], ["y"])]
    with pytest.raises(UnsupportedModelError, match=r"channels, must be known.*fixed sizes"):
        from_onnx(model(nodes, shape=(1, "h", "w", 3)))
    assert from_onnx(model(nodes, shape=(1, 8, 6, 3))).shapes["y"] == (1, 3, 8, 6)


def test_functions_of_the_model_are_expanded() -> None:
    """With attributes of the caller, defaults, missing inputs, and outputs that are inputs."""
    body = [
        node("LeakyRelu", ["a"], ["t"]),
        node("Clip", ["t", "low"], ["b"]),
    ]
    body[0].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    imports = [helper.make_opsetid("", 17)]
    inner = helper.make_function(
        "local", "F", ["a", "low"], ["b", "a"], body, imports, attributes=["slope"]
    )
    nodes = [
        node("F", ["x"], ["p", "q"], domain="local", slope=0.5),
        node("F", ["q", "l"], ["r"], domain="local", slope=0.25),
        node("Add", ["p", "r"], ["y"]),
    ]
    proto = model(nodes, {"l": np.float32(-0.125)}, functions=[inner])
    x = np.linspace(-1, 1, 3 * 13 * 18, dtype=np.float32).reshape(1, 3, 13, 18)
    from qppengine import reference

    half, quarter = np.where(x < 0, x / 2, x), np.maximum(np.where(x < 0, x / 4, x), -0.125)
    np.testing.assert_allclose(
        reference.run(from_onnx(proto), x)[0], half + quarter, rtol=1e-5, atol=1e-6
    )


def test_integers_computed_from_an_image_are_not_calculated_with() -> None:
    indices = node("ArgMax", ["x"], ["i"], axis=1)
    with pytest.raises(UnsupportedModelError, match=r"onnx\.Mul of integers.*Cast to FLOAT"):
        from_onnx(model([indices, node("Mul", ["i", "i"], ["y"])]))
    from_onnx(model([indices, node("Cast", ["i"], ["f"], to=1), node("Mul", ["f", "f"], ["y"])]))
