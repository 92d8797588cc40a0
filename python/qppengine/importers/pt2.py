# SPDX-License-Identifier: Apache-2.0
"""Reads a ``.pt2`` archive of `torch.export.save` with the standard library and NumPy alone.

The archive is a zip: ``models/model.json`` holds the program (operations with named, typed
arguments and the path of the module each came from), ``data/weights`` and ``data/constants`` hold
raw tensors with a JSON table of dtype, sizes, strides and offset. Nothing pickled is ever loaded,
every length is checked against the bytes that are there, and a damaged file is a `ModelError`.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qppengine.errors import ModelError, UnsupportedModelError
from qppengine.graph import Array, Value
from qppengine.importers.program import Call, Other, Program, Ref
from qppengine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qppengine.operations import Shape

SCHEMA_MAJOR = 8

# torch._export.serde.schema.ScalarType and Layout
_DTYPES: dict[int, np.dtype[Any]] = {6: np.dtype("<f2"), 7: np.dtype("<f4"), 8: np.dtype("<f8")}
_FLOAT32 = 7
_STRIDED = 7

_T = TypeVar("_T")


def read_pt2(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Program:
    """The program in the bytes of a ``.pt2`` file.

    Raises `ModelError` for a malformed file or one beyond `limits`, `UnsupportedModelError` for one
    that takes or returns something else than float32 tensors.
    """
    members = _read_members(data)
    model = _parse(members, "models/model.json")
    major = _field(_field(model, "schema_version", dict), "major", int)
    if major != SCHEMA_MAJOR:
        raise ModelError(f"expected a .pt2 schema version {SCHEMA_MAJOR}.x, got {major}.x")

    module = _field(model, "graph_module", dict)
    graph = _field(module, "graph", dict)
    signature = _field(module, "signature", dict)
    metas = _field(graph, "tensor_values", dict)
    nodes = _field(graph, "nodes", list)
    limits.check("nodes", len(nodes), "the nodes of the .pt2 archive")
    stored = {
        **_read_tensors(members, "data/weights", "model_weights_config.json"),
        **_read_tensors(members, "data/constants", "model_constants_config.json"),
    }

    problems: list[str] = []
    inputs: list[Value] = []
    tensors: dict[str, Array] = {}
    for spec in _field(signature, "input_specs", list):
        kind, content = _union(spec)
        if kind == "user_input":
            argument = _argument(_field(content, "arg", dict))
            if not isinstance(argument, Ref):
                problems.append(f"an input is no tensor ({argument!r})")
                continue
            meta = _field(metas, argument.name, dict)
            if _field(meta, "dtype", int) != _FLOAT32:
                problems.append(f"input {argument.name!r} is not float32")
            inputs.append(Value(argument.name, _shape(meta)))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            key = _field(content, f"{kind}_name", str)
            if key not in stored:
                raise ModelError(f"the tensor {key!r} is missing from the archive")
            if (tensor := stored[key]) is not None:
                tensors[_field(_field(content, "arg", dict), "name", str)] = tensor
        else:
            problems.append(f"an input of kind {kind!r}")

    outputs: list[str] = []
    for spec in _field(signature, "output_specs", list):
        kind, content = _union(spec)
        argument = _argument(_field(content, "arg", dict))
        if kind == "user_output" and isinstance(argument, Ref):
            outputs.append(argument.name)
        else:
            problems.append(f"an output of kind {kind!r} that is no tensor of the network's own")
    if problems:
        raise UnsupportedModelError(problems)

    calls = tuple(_call(node) for node in nodes)
    shapes = {name: _shape(meta) for name, meta in metas.items()}
    return Program(_root_class(nodes), tuple(inputs), tuple(outputs), calls, tensors, shapes)


def _read_members(data: bytes) -> dict[str, bytes]:
    """The files of the archive by their path below its root folder, sample inputs left out."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch writes members uncompressed; insisting on it keeps sizes honest.
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ModelError("not a .pt2 file of torch.export.save: its members are compressed")
            members = {
                name.partition("/")[2]: archive.read(name)
                for name in archive.namelist()
                if "/sample_inputs/" not in name  # a pickle
            }
    except ModelError:
        raise
    # What zipfile raises depends on which byte is damaged.
    except (
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        raise ModelError(f"not a readable .pt2 archive: {error}") from error
    if members.get("byteorder", b"little") != b"little":
        raise ModelError("the .pt2 archive was written on a big-endian machine")
    return members


def _parse(members: Mapping[str, bytes], path: str) -> dict[str, Any]:
    if path not in members:
        raise ModelError(f"the .pt2 archive has no {path}")
    try:
        content = json.loads(members[path])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def _read_tensors(members: Mapping[str, bytes], folder: str, table: str) -> dict[str, Array | None]:
    """Tensors by state-dict name as contiguous float32, None for those of another kind of dtype."""
    tensors: dict[str, Array | None] = {}
    for name, record in _field(_parse(members, f"{folder}/{table}"), "config", dict).items():
        if _field(record, "use_pickle", bool):
            raise ModelError(f"tensor {name!r} is pickled; pickles are never loaded")
        path = f"{folder}/{_field(record, 'path_name', str)}"
        if path not in members:
            raise ModelError(f"the .pt2 archive has no {path}")
        tensors[name] = _tensor(name, _field(record, "tensor_meta", dict), members[path])
    return tensors


def _tensor(name: str, meta: dict[str, Any], blob: bytes) -> Array | None:
    dtype = _DTYPES.get(_field(meta, "dtype", int))
    if dtype is None or _field(meta, "layout", int) != _STRIDED:
        return None
    sizes = [_size(size) for size in _field(meta, "sizes", list)]
    strides = [_size(stride) for stride in _field(meta, "strides", list)]
    offset = _size(_field(meta, "storage_offset", dict))
    elements = len(blob) // dtype.itemsize
    if len(sizes) != len(strides) or len(sizes) > 8 or len(blob) % dtype.itemsize:
        raise ModelError(f"tensor {name!r}: sizes, strides and data do not belong together")
    reach = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
    if 0 in sizes or reach > elements or math.prod(sizes) > elements:
        raise ModelError(
            f"tensor {name!r}: expected data for sizes {sizes}, strides {strides}, "
            f"offset {offset}, got {elements} elements"
        )
    flat = np.frombuffer(blob, dtype)[offset:]
    step_bytes = [step * dtype.itemsize for step in strides]
    view = np.lib.stride_tricks.as_strided(flat, sizes, step_bytes, writeable=False)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, refused by Graph
        return np.array(view, np.float32, order="C")


def _call(node: Any) -> Call:
    arguments = {
        _field(named, "name", str): _argument(_field(named, "arg", dict))
        for named in _field(node, "inputs", list)
    }
    outputs: list[str] = []
    for output in _field(node, "outputs", list):
        argument = _argument(output)
        refs = argument if isinstance(argument, list) else [argument]
        outputs += [ref.name for ref in refs if isinstance(ref, Ref)]
    target = _field(node, "target", str).removeprefix("torch.ops.")
    stack = _module_stack(node)
    return Call(target, stack[-1][0] if stack else "", arguments, tuple(outputs))


def _module_stack(node: Any) -> list[tuple[str, str]]:
    """Path and class of the modules around a node, outermost first; the root's path is ""."""
    text = _field(node, "metadata", dict).get("nn_module_stack", "")
    if not isinstance(text, str):
        raise ModelError("expected 'nn_module_stack' of type str")
    entries = (entry.split(",", 2) for entry in text.split(";") if entry)
    return [(entry[1], entry[2]) for entry in entries if len(entry) == 3]


def _root_class(nodes: list[Any]) -> str:
    for node in nodes:
        if stack := _module_stack(node):
            return stack[0][1].rpartition(".")[2] or "network"
    return "network"


def _argument(record: Any) -> Any:
    """The Python value of a typed argument."""
    kind, content = _union(record)
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return Ref(_field(content, "name", str))
    if kind == "as_tensors" and isinstance(content, list):
        return [Ref(_field(item, "name", str)) for item in content]
    if kind == "as_float" and content in ("Infinity", "-Infinity"):
        return float(content)
    for scalar, plural, types in (
        ("as_int", "as_ints", (int,)),
        ("as_float", "as_floats", (int, float)),
        ("as_bool", "as_bools", (bool,)),
        ("as_string", "as_strings", (str,)),
    ):
        items = content if kind == plural and isinstance(content, list) else [content]
        if kind in (scalar, plural):
            if not all(isinstance(item, types) for item in items):
                raise ModelError(f"expected {kind} of type {types[0].__name__}, got {content!r}")
            return content
    return Other(kind)


def _shape(meta: dict[str, Any]) -> Shape:
    """Sizes of a program value; a symbolic size is None."""
    sizes = _field(meta, "sizes", list)
    return tuple(None if _union(size)[0] == "as_expr" else _size(size) for size in sizes)


def _size(record: Any) -> int:
    kind, content = _union(record)
    if kind != "as_int" or type(content) is not int or not 0 <= content < 2**48:
        raise ModelError(f"expected a size, got {record!r}")
    return content


def _union(record: Any) -> tuple[str, Any]:
    """Tag and content of a tagged union, an object with one key."""
    if not isinstance(record, dict) or len(record) != 1:
        raise ModelError(f"expected an object with one key, got {str(record)[:80]}")
    return next(iter(record.items()))


def _field(record: Any, key: str, kind: type[_T]) -> _T:
    if not isinstance(record, dict):
        raise ModelError(f"expected an object with {key!r}, got {type(record).__name__}")
    value = record.get(key)
    if not isinstance(value, kind):
        raise ModelError(f"expected {key!r} of type {kind.__name__}, got {type(value).__name__}")
    return value
