# SPDX-License-Identifier: Apache-2.0
"""Fuzzes ONNX models: attributes, sizes, types, names and edges of small ones, and their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from driver import Target, main
from mutations import JUNK, alter_bytes
from onnx import TensorProto, helper, numpy_helper
from qppengine.importers import onnx_operators as onnx_operators  # registers the importers
from qppengine.importers.onnx_model import read_onnx
from qppengine.importers.registry import to_graph
from qppengine.passes import optimize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

node = helper.make_node
NUMBERS = [item for item in JUNK if type(item) is int and -(2**63) <= item < 2**63]
TEXTS = [item for item in JUNK if isinstance(item, str) and "\ud800" not in item]
TEXTS += ["SAME_UPPER", "VALID", "linear", "cubic", "half_pixel", "align_corners", "DCR", "edge"]


def info(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    tensors: dict[str, Any],
    shape: Sequence[int | str],
    outputs: Sequence[str],
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """The bytes of a model."""
    constants = [numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()]
    graph = helper.make_graph(
        nodes, "seed", [info("x", shape)], [info(name, None) for name in outputs], constants
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    return bytes(model.SerializeToString())


def seeds() -> list[bytes]:
    """Convolutions and other arithmetic; moves of elements; computed shapes."""
    rng = np.random.default_rng(3)

    def weight(*shape: int) -> Any:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    computing = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["c", "s", "s", "s", "v"], ["n"]),
        node("Clip", ["n", "low", "high"], ["k"]),
        node("ConvTranspose", ["k", "t", "s"], ["u"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("PRelu", ["u", "p"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1),
        node("AveragePool", ["r"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Sub", ["m", "a"], ["d"]),
        node("Resize", ["d", "", "scales"], ["z"], mode="linear"),
        node("HardSwish", ["z"], ["h"]),
        node("GlobalAveragePool", ["h"], ["g"]),
        node("Sigmoid", ["g"], ["q"]),
        node("Mul", ["h", "q"], ["y"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "b", "o"], ["e"], alpha=0.5, transB=1),
        node("Softmax", ["e"], ["l"], axis=-1),
    ]
    tensors = {
        "w": weight(4, 3, 3, 3),
        "s": weight(4),
        "v": np.ones(4, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "t": weight(4, 4, 3, 2),
        "p": weight(4, 1, 1),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "b": weight(5, 4),
        "o": weight(5),
    }
    moving = [
        node("Pad", ["x", "pads"], ["p"], mode="reflect"),
        node("SpaceToDepth", ["p"], ["s"], blocksize=2),
        node("Split", ["s", "parts"], ["a", "b"], axis=1),
        node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "sizes"], ["r"]),
        node("Slice", ["b", "from", "to", "axes", "steps"], ["c"]),
        node("ReduceMean", ["c", "spatial"], ["m"], keepdims=0),
        node("Unsqueeze", ["m", "spatial"], ["u"]),
        node("Concat", ["u", "u"], ["y"], axis=1),
        node("ArgMax", ["b"], ["i"], axis=1),
    ]
    sizes = {
        "pads": [0, 0, 1, 1, 0, 0, 1, 1],
        "parts": [4, 8],
        "sizes": [0, -1, 4],
        "from": [0],
        "to": [9],
        "axes": [1],
        "steps": [2],
        "spatial": [2, 3],
    }
    body = [node("LeakyRelu", ["a"], ["l"]), node("Relu", ["l"], ["b"])]
    body[0].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "F", ["a"], ["b"], body, imports, ["slope"])
    shaped = [
        node("F", ["x"], ["f"], domain="local", slope=0.5),
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Concat", ["n", "rest"], ["t"], axis=0),
        node("Reshape", ["f", "t"], ["r"]),
        node("ConstantOfShape", ["i"], ["z"], value=numpy_helper.from_array(weight(1), "v")),
        node("Expand", ["z", "wide"], ["e"]),
        node("Range", ["one", "three", "one"], ["k"]),
        node("Tile", ["k", "i"], ["q"]),
        node("Div", ["e", "half"], ["d"]),
        node("Add", ["f", "d"], ["y"]),
    ]
    constants = {
        "i": np.array([1]),
        "first": np.array([0]),
        "rest": np.array([3, -1]),
        "wide": np.array([3, 1, 1]),
        "one": np.int64(1),
        "three": np.int64(3),
        "half": np.float32(0.5),
    }
    return [
        make_model(computing, tensors, ["n", 3, "h", "w"], ["y", "l"]),
        make_model(moving, {k: np.array(v) for k, v in sizes.items()}, [1, 3, 8, 6], ["y", "r"]),
        make_model(shaped, constants, ["n", 3, 8, 6], ["y", "r"], [function]),
    ]


def mutate(data: bytes, rng: Random) -> bytes:
    """Alters some places of a model, or bytes of it."""
    if rng.randrange(6) == 0:
        return alter_bytes(data, rng)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice(ALTERATIONS)(model, rng)
        return bytes(model.SerializeToString())
    except Exception:  # of a mutant, whatever it is
        return alter_bytes(data, rng)


def nodes_of(model: onnx.ModelProto) -> list[Any]:
    """The nodes of the graph and of functions."""
    return [*model.graph.node, *(item for f in model.functions for item in f.node)]


def alter_attribute(model: onnx.ModelProto, rng: Random) -> None:
    """Another value, type or name, one attribute more or less."""
    chosen = rng.choice(nodes_of(model))
    if not chosen.attribute or rng.randrange(8) == 0:
        name = rng.choice(("axis", "pads", "group", "strides", "axes", "auto_pad", "to", "value"))
        chosen.attribute.append(helper.make_attribute(name, rng.choice(NUMBERS)))
        return
    attribute = rng.choice(chosen.attribute)
    kind = rng.randrange(8)
    if kind == 0:
        chosen.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = rng.randrange(15)
    elif kind == 2:
        attribute.name = rng.choice(TEXTS)
    elif attribute.ints:
        place = rng.randrange(len(attribute.ints))
        attribute.ints[place] = rng.choice(NUMBERS)
        if kind == 3:
            del attribute.ints[place]
        elif kind == 4:
            attribute.ints.extend(rng.choices(NUMBERS, k=rng.choice((1, 2, 1000))))
    elif attribute.s:
        attribute.s = rng.choice(TEXTS).encode() if kind < 7 else b"\xff\xfe"
    elif attribute.HasField("t"):
        alter_tensor(attribute.t, rng)
    else:
        attribute.i = rng.choice(NUMBERS)
        attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))


def alter_tensor(tensor: onnx.TensorProto, rng: Random) -> None:
    """Other elements, dimensions or types; data that is too short."""
    kind = rng.randrange(7)
    if kind == 0:
        tensor.data_type = rng.randrange(30)
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif kind == 2:
        tensor.dims.extend(rng.choices((1, 0, 2, 2**40), k=rng.choice((1, 2, 40))))
    elif kind == 3:
        tensor.raw_data = alter_bytes(tensor.raw_data, rng)
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=rng.choice(("../x", "/dev/zero", "", "w")))
    elif kind == 5:
        tensor.ClearField("raw_data")
        tensor.int64_data.extend(rng.choices(NUMBERS, k=rng.choice((1, 2, 8))))
    elif tensor.data_type == TensorProto.INT64:
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.flat[rng.randrange(array.size)] = rng.choice(NUMBERS)
        tensor.raw_data = array.tobytes()
    else:
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.flat[rng.randrange(array.size)] = rng.choice((0, 1e30, np.nan, np.inf, -1))
        tensor.raw_data = array.tobytes()


def alter_constant(model: onnx.ModelProto, rng: Random) -> None:
    """A stored tensor, or its name."""
    tensor = rng.choice(model.graph.initializer)
    if rng.randrange(6) == 0:
        tensor.name = rng.choice(TEXTS)
    elif rng.randrange(8) == 0:
        model.graph.initializer.remove(tensor)
    else:
        alter_tensor(tensor, rng)


def alter_edge(model: onnx.ModelProto, rng: Random) -> None:
    """Other inputs or outputs, more or fewer of them."""
    known = [name for item in model.graph.node for name in (*item.input, *item.output)]
    known += [tensor.name for tensor in model.graph.initializer] + ["", "x", "y", "unknown"]
    chosen = rng.choice(nodes_of(model))
    names = chosen.output if rng.randrange(4) == 0 else chosen.input
    kind = rng.randrange(5)
    if kind == 0 or not names:
        names.extend(rng.choices(known, k=rng.choice((1, 2, 500))))
    elif kind == 1:
        names.pop(rng.randrange(len(names)))
    else:
        names[rng.randrange(len(names))] = rng.choice(known)


def alter_operator(model: onnx.ModelProto, rng: Random) -> None:
    """Another operator or domain; nodes removed, repeated or in another order."""
    nodes = model.functions[0].node if model.functions and rng.random() < 0.2 else model.graph.node
    place = rng.randrange(len(nodes))
    kind = rng.randrange(7)
    if kind == 0:
        nodes.pop(place)
    elif kind == 1:
        nodes.insert(rng.randrange(len(nodes)), nodes[place])
    elif kind == 2:
        nodes[place].domain = rng.choice(("", "ai.onnx", "local", "ai.onnx.ml", "com.example"))
    elif kind == 3 and model.functions:
        nodes[place].op_type, nodes[place].domain = "F", "local"
    elif kind == 4:
        nodes[place].op_type = rng.choice(OPERATORS)
    else:
        nodes[place].op_type = rng.choice(model.graph.node).op_type


def alter_head(model: onnx.ModelProto, rng: Random) -> None:
    """Operator sets, sizes of inputs, types, names of inputs and outputs."""
    kind = rng.randrange(7)
    value = rng.choice((*model.graph.input, *model.graph.output))
    if kind == 0:
        rng.choice(model.opset_import).version = rng.choice((*range(11, 30), *NUMBERS))
    elif kind == 1:
        value.name = rng.choice((*TEXTS, "x", "y"))
    elif kind == 2:
        value.type.tensor_type.elem_type = rng.randrange(25)
    elif kind == 3:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif kind == 4:
        model.graph.output.append(info(rng.choice(model.graph.node).output[0], None))
    elif dims := model.graph.input[0].type.tensor_type.shape.dim:
        dim = rng.choice(dims)
        dim.dim_value = rng.choice(NUMBERS)
        if kind == 5:
            dim.dim_param = rng.choice(TEXTS)


OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
ALTERATIONS: list[Callable[[onnx.ModelProto, Random], None]] = [
    *[alter_attribute, alter_constant, alter_edge] * 2,
    *[alter_operator, alter_head],
]


def attempt(data: bytes) -> None:
    """Imports a model as `from_onnx` does, except that an unforeseen exception is a fault."""
    optimize(to_graph(read_onnx(data)))


if __name__ == "__main__":
    main(Target("onnx", seeds, mutate, attempt))
