# SPDX-License-Identifier: Apache-2.0
"""Reads ONNX files into plain data, and checks everything that can be checked node by node.

Protobuf is the only code outside this package that sees the bytes: ONNX's own checker and
inference abort the process on some files. What a small file could make large is counted first.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qppengine.errors import ModelError, UnsupportedError, UnsupportedModelError
from qppengine.importers.onnx_tensors import TensorReader
from qppengine.paths import read_regular_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from qppengine.limits import Limits

# The first operator set in which axes are inputs, and the last that the importers were tested with.
FIRST_OPSET = 13
LAST_OPSET = 28

# How protobuf stores a field.
_VARINT = 0
_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
_MESSAGE_BYTES = 16  # of a file, for each of its messages beyond the limit


@dataclass(frozen=True)
class OnnxNode:
    """A node: attributes with their defaults, and inputs by their names in ONNX's schema."""

    target: str  # "onnx.Conv", or with another domain
    name: str
    module: str  # the path of the module it comes from, as far as the exporter wrote it
    attributes: Mapping[str, Any]  # int, float, str, lists of these, array, Other
    inputs: Mapping[str, str | list[str]]  # by formal name
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How errors name it."""
        return self.name or f"the node of {next(filter(None, self.outputs), '')!r}"

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The names of all its inputs."""
        groups = ([name] if isinstance(name, str) else name for name in self.inputs.values())
        return tuple(name for group in groups for name in group)


@dataclass(frozen=True)
class Input:
    """An input: its element type, and its shape, where names and None are dynamic dimensions."""

    name: str
    element_type: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class OnnxGraph:
    """A checked model: every name is defined once, and before it is read."""

    name: str
    opset: int
    size: int  # bytes
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    tensors: TensorReader


@dataclass(frozen=True)
class Unread:
    """An attribute of a kind that no importer reads, such as a graph."""

    kind: str = "attribute"
    is_graph: bool = field(default=False)


def read_file(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, limits: Limits
) -> OnnxGraph:
    """The checked model in an ONNX file, its bytes, or a model in memory."""
    import onnx

    folder = None
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source).parent
        source = read_regular_file(source)
    if isinstance(source, bytes):
        size = len(source)
        _count_messages(source, limits)
        model = onnx.ModelProto()
        model.ParseFromString(source)
    elif isinstance(source, onnx.ModelProto):
        model, size = source, source.ByteSize()
    else:
        raise UnsupportedError(
            f"expected an .onnx path, bytes or a ModelProto, got {type(source).__name__}"
        )
    graph = model.graph
    if not graph.node and not graph.output:
        raise ModelError("not a readable ONNX model: it has neither nodes nor outputs")
    opset = _opset(model)
    for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
        limits.check(kind, len(values), f"the {kind} of the ONNX model")
    if graph.sparse_initializer:
        raise UnsupportedModelError(["sparse weights; closest supported form: dense weights"])
    limits.check("nodes", len(graph.initializer), "the constants of the ONNX model")
    tensors = TensorReader(graph.initializer, folder, limits)
    nodes = list(_Nodes(model, opset, tensors, limits).expanded())
    inputs = tuple(_input(info) for info in graph.input if info.name not in tensors)
    checked = OnnxGraph(
        graph.name or "network",
        opset,
        size + tensors.external_bytes,
        inputs,
        tuple(output.name for output in graph.output),
        tuple(nodes),
        tensors,
    )
    _check_names(checked, limits)
    return checked


def _opset(model: onnx.ModelProto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise ModelError(
            f"not a readable ONNX model: expected one version of ONNX's operators, got {versions}"
        )
    if not FIRST_OPSET <= versions[0] <= LAST_OPSET:
        raise UnsupportedError(
            f"expected an operator set from {FIRST_OPSET} to {LAST_OPSET}, got {versions[0]}; "
            "convert the model with onnx.version_converter"
        )
    return int(versions[0])


def _input(info: onnx.ValueInfoProto) -> Input:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return Input(info.name, tensor.elem_type, None)
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value != -1:  # which some exporters write for any
            if dim.dim_value < 1:
                raise ModelError(
                    f"input {info.name!r}: expected sizes of at least 1, or -1 for any, got "
                    f"{dim.dim_value}"
                )
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param or None)
    return Input(info.name, tensor.elem_type, tuple(shape))


def _check_names(graph: OnnxGraph, limits: Limits) -> None:
    """Raises `ModelError` unless each name is defined once, and before it is read."""
    defined = dict.fromkeys(graph.tensors, "constant")
    for info in graph.inputs:
        limits.check("name_bytes", len(info.name.encode()), f"input {info.name[:40]!r}...")
        if not info.name or info.name in defined:
            raise ModelError(f"input {info.name!r} is defined twice, or has no name")
        defined[info.name] = "input"
    for node in graph.nodes:
        for name in node.reads:
            if name not in defined:
                raise ModelError(
                    f"{node.label}: reads {name!r}, which nothing before it defines; nodes must "
                    "be topologically sorted"
                )
        for name in filter(None, node.outputs):
            limits.check("name_bytes", len(name.encode()), f"value {name[:40]!r}...")
            if name in defined:
                raise ModelError(f"{node.label}: defines {name!r} a second time")
            defined[name] = node.label
    for name in graph.outputs:
        if name not in defined:
            raise ModelError(f"the output {name!r} is not computed by the model")
    if len(set(graph.outputs)) < len(graph.outputs):
        raise ModelError(f"outputs {list(graph.outputs)} must have different names")


# -------------------------------------------------------------------------------------------- nodes


class _Nodes:
    """The nodes of a model, in which calls of its own functions are replaced by their nodes."""

    def __init__(
        self, model: onnx.ModelProto, opset: int, tensors: TensorReader, limits: Limits
    ) -> None:
        self._graph = model.graph
        self._opset = opset
        self._tensors = tensors
        self._limits = limits
        self._functions = {(f.domain, f.name): f for f in model.functions}
        self._schemas: dict[tuple[str, str], _Schema | None] = {}
        self._calls = 0

    def expanded(self) -> Iterator[OnnxNode]:
        """All nodes, checked one by one."""
        sizes: dict[tuple[str, str], int] = {}
        count = self._count_nodes(self._graph.node, sizes, 0)
        self._limits.check("nodes", count, "the nodes of the ONNX model")
        yield from self._expand(self._graph.node, {}, {}, "", 0)

    def _count_nodes(
        self, nodes: Sequence[onnx.NodeProto], sizes: dict[tuple[str, str], int], depth: int
    ) -> int:
        """How many there are, with calls expanded; `sizes` holds those of functions."""
        self._limits.check("nesting", depth, "functions of the ONNX model that call each other")
        count = len(nodes)
        for node in nodes if self._functions else ():
            key = (node.domain, node.op_type)
            if key in self._functions:
                if key not in sizes:
                    sizes[key] = self._count_nodes(self._functions[key].node, sizes, depth + 1)
                count += sizes[key]
        return count

    def _expand(
        self,
        nodes: Sequence[onnx.NodeProto],
        names: Mapping[str, str],
        arguments: Mapping[str, onnx.AttributeProto],
        prefix: str,
        depth: int,
    ) -> Iterator[OnnxNode]:
        """The nodes of the graph, or of a function called with such values and attributes."""
        names = dict(names)
        for node in nodes:
            attributes = [
                replacement
                for attribute in node.attribute
                if (replacement := _resolved(attribute, arguments)) is not None
            ]
            for name in node.output if depth else ():
                names.setdefault(name, f"{prefix}{name}" if name else "")
            inputs = [self._renamed(name, names, depth, node) for name in node.input]
            outputs = [names.get(name, name) for name in node.output]
            function = self._functions.get((node.domain, node.op_type))
            if function is None:
                yield self._node(node, attributes, inputs, outputs)
            else:
                yield from self._call(function, attributes, inputs, outputs, depth)

    def _renamed(
        self, name: str, names: Mapping[str, str], depth: int, node: onnx.NodeProto
    ) -> str:
        if not depth or not name:
            return name
        if name not in names:
            raise ModelError(f"a node {node.op_type!r} of a function reads {name!r}, not defined")
        return names[name]

    def _call(
        self,
        function: onnx.FunctionProto,
        attributes: Sequence[onnx.AttributeProto],
        inputs: Sequence[str],
        outputs: Sequence[str],
        depth: int,
    ) -> Iterator[OnnxNode]:
        if len(inputs) > len(function.input) or len(outputs) > len(function.output):
            raise ModelError(
                f"function {function.name!r} takes {len(function.input)} inputs and makes "
                f"{len(function.output)} outputs, called with {len(inputs)} and {len(outputs)}"
            )
        versions = {o.version for o in function.opset_import if o.domain in ("", "ai.onnx")}
        if versions - {self._opset}:
            raise UnsupportedError(
                f"function {function.name!r} of operator set {max(versions)}",
                closest=f"that of the model, {self._opset}",
            )
        self._calls += 1
        prefix = f"{function.name}/{self._calls}/"
        given = dict.fromkeys(function.input, "") | dict(zip(function.input, inputs, strict=False))
        values = {attribute.name: attribute for attribute in function.attribute_proto} | {
            attribute.name: attribute for attribute in attributes
        }
        # A function may return one of its arguments.
        made = dict(zip(function.output, outputs, strict=False))
        passed = {name: target for name, target in made.items() if target and name in given}
        body = {name: target for name, target in made.items() if name not in given and target}
        yield from self._expand(function.node, {**given, **body}, values, prefix, depth + 1)
        for name, target in passed.items():
            yield OnnxNode("onnx.Identity", "", "", {}, {"input": given[name]}, (target,))

    def _node(
        self,
        node: onnx.NodeProto,
        attributes: Sequence[onnx.AttributeProto],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> OnnxNode:
        domain = "" if node.domain == "ai.onnx" else node.domain
        target = f"{domain or 'onnx'}.{node.op_type}"
        values: dict[str, Any] = {}
        for attribute in attributes:
            if attribute.name in values:
                raise ModelError(f"{node.name or target}: two attributes {attribute.name!r}")
            values[attribute.name] = self._value(attribute)
        checked = OnnxNode(target, node.name, _module(node), values, {}, tuple(outputs))
        if not any(outputs):
            raise ModelError(f"{node.name or target}: a node without outputs")
        key = (node.op_type, domain)
        if key not in self._schemas:
            self._schemas[key] = _Schema.find(*key, self._opset)
        schema = self._schemas[key]
        if schema is None:
            listed = {"inputs": [name for name in inputs if name]}
            return replace(checked, inputs=listed)
        schema.check(checked.label, target, attributes, inputs, outputs)
        return replace(
            checked,
            attributes={**schema.defaults, **values},
            inputs=schema.named(inputs),
        )

    def _value(self, attribute: onnx.AttributeProto) -> Any:
        from onnx import AttributeProto as Proto

        kind = attribute.type
        if kind == Proto.INT:
            return attribute.i
        if kind == Proto.FLOAT:
            return attribute.f
        if kind == Proto.STRING:
            return attribute.s.decode()
        if kind in (Proto.INTS, Proto.FLOATS):
            numbers = attribute.ints if kind == Proto.INTS else attribute.floats
            return list(numbers)
        if kind == Proto.TENSOR:
            array = self._tensors.read(attribute.t)
            return Unread("tensor") if array is None else array
        return Unread(is_graph=kind in (Proto.GRAPH, Proto.GRAPHS))


def _resolved(
    attribute: onnx.AttributeProto, arguments: Mapping[str, onnx.AttributeProto]
) -> onnx.AttributeProto | None:
    """An attribute, or the value that the caller of a function passes for it."""
    if not attribute.ref_attr_name:
        return attribute
    given = arguments.get(attribute.ref_attr_name)
    if given is None:
        return None
    copied = type(attribute)()
    copied.CopyFrom(given)
    copied.name = attribute.name
    return copied


class _Schema:
    """What ONNX says of an operator: looked up by its name, so that nothing else gets there."""

    def __init__(self, schema: onnx.defs.OpSchema) -> None:
        option = type(schema).FormalParameterOption
        self._counts = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
        self._types = {name: int(a.type.value) for name, a in schema.attributes.items()}
        self._required = {name for name, a in schema.attributes.items() if a.required}
        self._formals = [
            (formal.name, formal.option == option.Variadic, formal.option == option.Single)
            for formal in schema.inputs
        ]
        self.defaults = {
            name: default
            for name, a in schema.attributes.items()
            if a.default_value.name and (default := _plain(a.default_value)) is not None
        }

    @classmethod
    def find(cls, op: str, domain: str, opset: int) -> _Schema | None:
        """The schema of an operator; None for one that ONNX does not have in this set."""
        from onnx import defs

        try:
            schema = defs.get_schema(op, opset, domain)
        except defs.SchemaError:
            return None
        return None if schema.deprecated else cls(schema)

    def check(
        self,
        label: str,
        target: str,
        attributes: Sequence[onnx.AttributeProto],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        """Raises `ModelError` for a node that ONNX does not allow."""
        least, most, least_out, most_out = self._counts
        if not least <= len(inputs) <= most or not least_out <= len(outputs) <= most_out:
            raise ModelError(
                f"{label}: {target}: expected {least} to {most} inputs and {least_out} to "
                f"{most_out} outputs, got {len(inputs)} and {len(outputs)}"
            )
        for (name, _, required), value in zip(self._formals, inputs, strict=False):
            if required and not value:
                raise ModelError(f"{label}: {target}: the input {name!r} is missing")
        for attribute in attributes:
            if self._types.get(attribute.name) != attribute.type:
                raise ModelError(
                    f"{label}: {target}: it has no attribute {attribute.name!r} of this type"
                )
        if missing := self._required - {attribute.name for attribute in attributes}:
            raise ModelError(f"{label}: {target}: the attribute {min(missing)!r} is missing")

    def named(self, inputs: Sequence[str]) -> dict[str, str | list[str]]:
        """The inputs by their formal names; a variadic one takes all that follow."""
        named: dict[str, str | list[str]] = {}
        for index, value in enumerate(inputs):
            name, is_variadic, _ = self._formals[min(index, len(self._formals) - 1)]
            if is_variadic:
                listed = named.setdefault(name, [])
                assert isinstance(listed, list)
                listed.append(value)
            elif value:
                named[name] = value
        return named


def _plain(attribute: onnx.AttributeProto) -> Any:
    """The default value of an attribute."""
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (int, float)):
        return value
    return list(value) if isinstance(value, (list, tuple)) else None


def _module(node: onnx.NodeProto) -> str:
    """The path of the module a node comes from, as far as exporters write it."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":  # ["", "layers", "layers.0", "conv2d"]
            scopes = _quoted(prop.value)
            return scopes[-2] if len(scopes) > 1 else ""
    *path, last = node.name.strip("/").split("/")  # "/layers/layers.0/conv/Conv"
    if not re.fullmatch(rf"{re.escape(node.op_type)}(_\d+)?", last):
        path.append(last)
    nested = itertools.pairwise([*path, ""])
    return ".".join(name for name, inner in nested if not inner.startswith(f"{name}."))


def _quoted(text: str) -> list[str]:
    """The strings of a list of quoted strings."""
    return [quoted[1:-1] for quoted in re.findall(r"'[^']*'|\"[^\"]*\"", text)]


# ---------------------------------------------------------------------------------------- messages


def _count_messages(data: bytes, limits: Limits) -> None:
    """Raises `ModelError` where a file has so many small messages that reading it takes memory.

    Two bytes of a file can ask for hundreds in memory. Malformed bytes are left to protobuf.
    """
    import onnx

    count = 0
    most = limits.json_values + len(data) // _MESSAGE_BYTES
    tables: dict[str, dict[int, Any]] = {}
    stack: list[tuple[int, int, Any]] = [(0, len(data), onnx.ModelProto.DESCRIPTOR)]
    while stack:
        place, end, descriptor = stack.pop()
        if descriptor.full_name not in tables:
            known = descriptor.fields_by_number.items()
            tables[descriptor.full_name] = {
                number: item.message_type for number, item in known if item.message_type
            }
        messages = tables[descriptor.full_name]
        while place < end:
            tag, place = _varint(data, place, end)
            wire = tag & 7
            if wire == _LENGTH_DELIMITED:
                length, place = _varint(data, place, end)
                if tag >> 3 in messages:
                    count += 1
                    if length:
                        stack.append((place, min(place + length, end), messages[tag >> 3]))
                    if count > most:
                        free = most - limits.json_values
                        limits.check("json_values", count - free, "the parts of the ONNX model")
                place += length
            elif wire == _VARINT:
                _, place = _varint(data, place, end)
            elif wire in _FIXED_BYTES:
                place += _FIXED_BYTES[wire]
            else:
                break  # a group, or damaged


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A number, and the place after it."""
    if place < end and data[place] < 128:
        return data[place], place + 1
    value = shift = 0
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            break
    return value, end
