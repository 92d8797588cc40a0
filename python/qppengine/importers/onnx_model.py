# SPDX-License-Identifier: Apache-2.0
"""Reads ONNX models: resolves defaults and constants, and leaves the operations on images.

What exporters compute from shapes (``Shape``, ``Gather``, ``Concat``, ...) and from weights alone
is folded with ONNX's own reference. Everything a file says is checked by ONNX first, and a file
that is damaged or hostile is a `ModelError`.
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import Error, FileError, ModelError, UnsupportedError, UnsupportedModelError
from qppengine.graph import Array, Value
from qppengine.importers.program import AXES, Call, Other, Program, Ref
from qppengine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import onnx

    from qppengine.operations import Shape

# The first operator set in which axes are inputs, and the last that the importers were tested with.
FIRST_OPSET = 13
LAST_OPSET = 28

# Operations that are computed at import when all they read is known.
# fmt: off
_FOLDABLE = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal",
    "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceProd", "Reshape",
    "Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where"
})
# fmt: on
_LARGEST_CONSTANT = 2**26  # elements, so that a small file does not ask for all memory
_LARGEST_SIZES = 64  # of constants on which a shape may depend
_POOLS = ("AveragePool", "MaxPool")


def read_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, limits: Limits = DEFAULT_LIMITS
) -> Program:
    """The program in an ONNX file, its bytes, or a model in memory.

    Raises `ModelError` for a malformed model or one beyond `limits`, `UnsupportedModelError` for
    one that takes something else than floating-point tensors, `UnsupportedError` for another
    operator set, `FileError`.
    """
    try:
        model = _load(source)
        limits.check("nodes", len(model.graph.node), "the nodes of the ONNX model")
        return _Reader(model).read()
    except Error:
        raise
    except Exception as error:  # onnx and protobuf name no exceptions for a damaged model
        raise ModelError(f"not a readable ONNX model: {error}") from error


def _load(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """The model with all its tensors, checked."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data
    from onnx.inliner import inline_local_functions

    if isinstance(source, (str, os.PathLike)):
        try:
            model = onnx.load_model_from_string(Path(source).read_bytes())
        except OSError as error:
            raise FileError(f"cannot read {os.fspath(source)!r}: {error.strerror}") from error
        load_external_data_for_model(model, os.fspath(Path(source).parent))
    elif isinstance(source, bytes):
        model = onnx.load_model_from_string(source)
    elif isinstance(source, onnx.ModelProto):
        model = source
    else:
        raise UnsupportedError(
            f"expected an .onnx path, bytes or a ModelProto, got {type(source).__name__}"
        )
    if any(uses_external_data(tensor) for tensor in model.graph.initializer):
        raise ModelError("the weights are in a file of their own; give the path of the model")
    if model.functions:
        model = inline_local_functions(model)
    # Inference tells the shapes of outputs, which exporters leave out and the checker insists on.
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    return model


class _Reader:
    """Walks a model once. Tensors are known by their names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = next(
            (o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), LAST_OPSET
        )
        if not FIRST_OPSET <= self._opset <= LAST_OPSET:
            raise UnsupportedError(
                f"expected an operator set from {FIRST_OPSET} to {LAST_OPSET}, got {self._opset}; "
                "convert the model with onnx.version_converter"
            )
        if self._graph.sparse_initializer:
            raise UnsupportedModelError(["sparse weights; nearest is dense weights"])
        # An open size is tried with two values: what differs depends on it.
        first = _Trial(self._graph, self._opset, 2)
        self._trials = [first, _Trial(self._graph, self._opset, 3) if first.open_sizes else first]
        self._images: set[str] = set()  # what is computed from an input, unlike sizes of images
        self._tensors: dict[str, Array] = {}

    def read(self) -> Program:
        inputs = self._inputs()
        calls = []
        for node in self._graph.node:
            is_size = _target(node) in ("onnx.Shape", "onnx.Size")
            if is_size or self._images.isdisjoint(node.input):
                continue
            self._images.update(node.output)
            calls.append(self._call(node))
        outputs = tuple(output.name for output in self._graph.output)
        if problems := [
            f"output {name!r} does not depend on an input"
            for name in outputs
            if name not in self._images
        ]:
            raise UnsupportedModelError(problems)
        names = self._trials[0].types
        shapes = {name: shape for name in names if (shape := self._shape(name)) is not None}
        return Program(
            self._graph.name or "network",
            inputs,
            outputs,
            tuple(_needed(calls, outputs)),
            self._tensors,
            shapes,
            names_outputs=True,
        )

    def _inputs(self) -> tuple[Value, ...]:
        from onnx import TensorProto

        inputs = []
        problems = []
        defaults = {tensor.name for tensor in self._graph.initializer}
        for info in self._graph.input:
            if info.name in defaults:
                continue
            kind = info.type.tensor_type.elem_type
            if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
                problems.append(f"input {info.name!r} is no tensor of floating-point numbers")
                continue
            shape = self._shape(info.name)
            if shape is None or len(shape) not in AXES:
                rank = "unknown rank" if shape is None else f"{len(shape)} dimensions"
                problems.append(f"input {info.name!r} has {rank}; nearest is [N, C, H, W]")
                continue
            image: list[int | None] = [1] * 4
            for axis, size in zip(AXES[len(shape)], shape, strict=True):
                image[axis] = size
            inputs.append(Value(info.name, tuple(image)))
            self._images.add(info.name)
        if problems:
            raise UnsupportedModelError(problems)
        return tuple(inputs)

    def _shape(self, name: str) -> Shape | None:
        """The shape of a tensor as far as it is known; None is any size."""
        first, second = (trial.shape(name) for trial in self._trials)
        if first is None or second is None or len(first) != len(second):
            return None
        return tuple(a if a == b else None for a, b in zip(first, second, strict=True))

    def _call(self, node: onnx.NodeProto) -> Call:
        import onnx

        arguments: dict[str, Any] = {}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        except onnx.defs.SchemaError:  # an operation of somebody else
            arguments["inputs"] = [self._argument(name) for name in node.input]
        else:
            for name, attribute in schema.attributes.items():
                if attribute.default_value.name:
                    arguments[name] = _value(attribute.default_value)
            for index, name in enumerate(node.input):
                formal = schema.inputs[min(index, len(schema.inputs) - 1)]
                if formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
                    arguments.setdefault(formal.name, []).append(self._argument(name))
                elif name:
                    arguments[formal.name] = self._argument(name)
        arguments |= {attribute.name: _value(attribute) for attribute in node.attribute}
        if _target(node) == "onnx.Resize":
            arguments |= self._common_scales(node)
        label = node.name or f"the node of {node.output[0]!r}"
        return Call(_target(node), _module(node), arguments, tuple(node.output), label)

    def _common_scales(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Scales in place of open sizes, such as another image's, where the trials agree."""
        name = node.output[0]
        if None not in (self._shape(name) or (None,))[2:]:
            return {}
        ratios = []
        for trial in self._trials:
            before, after = trial.shape(node.input[0]), trial.shape(name)
            if before is None or after is None or len(before) != len(after):
                return {}
            ratios.append([b / a for a, b in zip(before, after, strict=True)])
        if ratios[0] != ratios[1]:
            return {}
        self._tensors[f"{name}/scales"] = np.array(ratios[0], np.float32)
        return {"scales": Ref(f"{name}/scales"), "sizes": None, "axes": None}

    def _argument(self, name: str) -> Any:
        """An image or weights by name; sizes and the like as numbers, None where they are open."""
        if name in self._images:
            return Ref(name)
        first, second = (trial.constants.get(name) for trial in self._trials)
        if first is None or second is None or first.shape != second.shape:
            return Other("known at run time only")
        if not np.issubdtype(first.dtype, np.floating):
            numbers = first.astype(object)
            numbers[first != second] = None
            return numbers.tolist()
        if not np.array_equal(first, second):
            return Other("known at run time only")
        if name not in self._tensors:
            with np.errstate(over="ignore"):  # becomes infinity, which is refused by Graph
                self._tensors[name] = np.asarray(first, np.float32)
        return Ref(name)


class _Trial:
    """A model whose open sizes are set: types of all tensors, and those that are constants."""

    def __init__(self, graph: onnx.GraphProto, opset: int, step: int) -> None:
        from onnx import helper, numpy_helper

        self._opset = opset
        self.types: dict[str, onnx.TypeProto] = {}
        self.constants: dict[str, npt.NDArray[Any]] = {}
        for tensor in graph.initializer:
            self.constants[tensor.name] = numpy_helper.to_array(tensor)
            self.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        # Networks often halve them, and want them to be large.
        self.open_sizes: dict[str, int] = {}
        for info in graph.input:
            if info.name not in self.constants:
                self.types[info.name] = copied = type(info.type)()
                copied.CopyFrom(info.type)
                for place, dim in enumerate(copied.tensor_type.shape.dim):
                    if not dim.HasField("dim_value"):
                        key = dim.dim_param or f"{info.name} {place}"
                        size = 64 * (5 + step * (1 + len(self.open_sizes)))
                        dim.dim_value = self.open_sizes.setdefault(key, size)
        for node in graph.node:
            if not self._fold(node):
                self._infer(node)

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self.types[name].tensor_type if name in self.types else None
        if tensor is None or not tensor.HasField("shape"):
            return None
        sizes = tuple(
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim
        )
        return None if -1 in sizes else sizes

    def _fold(self, node: onnx.NodeProto) -> bool:
        """Computes the outputs of a node that reads constants or the shape of a tensor only."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        if _target(node).removeprefix("onnx.") not in _FOLDABLE:
            return False
        if node.op_type == "Shape" and (shape := self.shape(node.input[0])) is not None:
            limits = {attribute.name: attribute.i for attribute in node.attribute}
            part = shape[limits.get("start", 0) : limits.get("end")]
            results = [np.array(part, np.int64)]
        elif all(name in self.constants for name in node.input if name):
            model = self._infer(node)
            shapes = [self.shape(name) for name in node.output]
            if any(shape is None or math.prod(shape) > _LARGEST_CONSTANT for shape in shapes):
                return True
            results = ReferenceEvaluator(model).run(None, {})
        else:
            return False
        for name, result in zip(node.output, results, strict=True):
            self.constants[name] = np.asarray(result)
            kind = helper.np_dtype_to_tensor_dtype(self.constants[name].dtype)
            self.types[name] = helper.make_tensor_type_proto(kind, self.constants[name].shape)
        return True

    def _infer(self, node: onnx.NodeProto) -> onnx.ModelProto:
        """Infers the types of a node's outputs; returns the model of the node alone."""
        from onnx import helper, numpy_helper, shape_inference

        known = {name: self.constants.get(name) for name in node.input if name in self.types}
        foldable = all(array is not None for array in known.values())
        constants = {
            name: array
            for name, array in known.items()
            if array is not None and (foldable or array.size <= _LARGEST_SIZES)
        }
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_value_info(n, self.types[n]) for n in known if n not in constants],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        # Until 22, pools counted windows that begin behind the image; nothing ever computed them.
        opset = max(self._opset, 22) if node.op_type in _POOLS else self._opset
        imports = [helper.make_opsetid("", opset)]
        if node.domain:
            imports.append(helper.make_opsetid(node.domain, 1))
        model = helper.make_model(graph, opset_imports=imports)
        for output in shape_inference.infer_shapes(model, data_prop=True).graph.output:
            if output.type.tensor_type.elem_type:
                self.types[output.name] = output.type
        return model


def _target(node: onnx.NodeProto) -> str:
    domain = "onnx" if node.domain in ("", "ai.onnx") else node.domain
    return f"{domain}.{node.op_type}"


def _value(attribute: onnx.AttributeProto) -> Any:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, (int, float)) for item in value):
        return list(value)
    return Other("attribute")


def _module(node: onnx.NodeProto) -> str:
    """The path of the module a node comes from, as far as exporters tell it."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":  # ["", "layers", "layers.0", "conv2d"]
            scopes = ast.literal_eval(prop.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    *path, last = node.name.strip("/").split("/")  # "/layers/layers.0/conv/Conv"
    if not re.fullmatch(rf"{re.escape(node.op_type)}(_\d+)?", last):
        path.append(last)
    nested = itertools.pairwise([*path, ""])
    return ".".join(name for name, inner in nested if not inner.startswith(f"{name}."))


def _needed(calls: Sequence[Call], outputs: Sequence[str]) -> list[Call]:
    """The calls on which outputs depend."""
    needed = set(outputs)
    kept = []
    for call in reversed(calls):
        if needed.intersection(call.outputs):
            kept.append(call)
            for argument in call.arguments.values():
                refs = argument if isinstance(argument, list) else [argument]
                needed.update(ref.name for ref in refs if isinstance(ref, Ref))
    return kept[::-1]
