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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from qppengine.errors import ModelError, UnsupportedModelError
from qppengine.importers.aliases import Layout, without_aliases
from qppengine.importers.program import (
    AXES,
    Call,
    ImportedProgram,
    Other,
    Ref,
    as_image,
    needed_calls,
)
from qppengine.ir import InputInfo
from qppengine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

SCHEMA_MAJOR = 8
_MAX_ELEMENTS = 2**40  # of a stored tensor, whose strides may be 0

# torch._export.serde.schema.ScalarType and Layout
_DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name)
    for code, name in (
        (1, "u1"), (2, "i1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (6, "<f2"), (7, "<f4"),
        (8, "<f8"), (12, "?"),
    )
}  # fmt: skip
_FLOAT32 = 7
_STRIDED = 7

_T = TypeVar("_T")


def read_pt2(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImportedProgram:
    """The program in the bytes of a ``.pt2`` file.

    Raises `ModelError` for a malformed file or one beyond `limits`, `UnsupportedModelError` for one
    that takes or returns something else than float32 tensors.
    """
    members = _read_members(data, limits)
    if "data.pkl" in members:
        raise ModelError(
            "expected a .pt2 file of torch.export.save, got one of torch.save, which holds pickles"
        )
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

    layouts = {name: _layout(meta) for name, meta in metas.items()}
    signed = _read_signature(signature, layouts, stored)
    if signed.problems:
        raise UnsupportedModelError(signed.problems)

    whole = without_aliases([_call(node) for node in nodes], signed.outputs, layouts, limits)
    calls = needed_calls(whole.calls, whole.outputs)
    read = {*whole.outputs, *(ref.name for call in calls for ref in call.refs())}
    if problems := [
        f"the {kind} is changed by every run, and outputs depend on it; closest supported form: a "
        "network that keeps no state"
        for name, kind in signed.states.items()
        if name in whole.changed and name in read
    ]:
        raise UnsupportedModelError(problems)
    layouts |= {version: layouts[name] for version, name in whole.versions.items()}
    return ImportedProgram(
        _root_class(nodes),
        signed.inputs,
        whole.outputs,
        calls,
        signed.tensors,
        {name: layout.sizes for name, layout in layouts.items()},
        {name: _DTYPES[item.dtype] for name, item in layouts.items() if item.dtype in _DTYPES},
        limits,
        len(data),
    )


class _Signature(NamedTuple):
    """What a program takes and returns."""

    inputs: tuple[InputInfo, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, npt.NDArray[Any]]
    states: Mapping[str, str]  # parameters and buffers by name, and how errors name them
    problems: tuple[str, ...]


def _read_signature(
    signature: dict[str, Any],
    layouts: Mapping[str, Layout],
    stored: Mapping[str, npt.NDArray[Any] | None],
) -> _Signature:
    problems: list[str] = []
    inputs: list[InputInfo] = []
    tensors: dict[str, npt.NDArray[Any]] = {}
    states: dict[str, str] = {}
    for spec in _field(signature, "input_specs", list):
        kind, content = _union(spec)
        if kind == "user_input":
            argument = _argument(_field(content, "arg", dict))
            if isinstance(argument, Ref):
                if argument.name not in layouts:
                    raise ModelError(f"input {argument.name!r} has no shape")
                shape, _, _, dtype = layouts[argument.name]
                if dtype != _FLOAT32:
                    problems.append(f"input {argument.name!r} is not float32")
                elif len(shape) not in AXES:
                    problems.append(
                        f"input {argument.name!r} has {len(shape)} dimensions; closest supported "
                        "form: [N, C, H, W]"
                    )
                else:
                    inputs.append(InputInfo(argument.name, as_image(shape)))
            elif isinstance(argument, Other):
                problems.append(f"an input is not a tensor ({argument.kind})")
        elif kind in ("parameter", "buffer", "tensor_constant"):
            key = _field(content, f"{kind}_name", str)
            name = _field(_field(content, "arg", dict), "name", str)
            if key not in stored:
                raise ModelError(f"the tensor {key!r} is missing from the archive")
            states[name] = f"{kind} {key!r}"
            if (tensor := stored[key]) is not None:
                tensors[name] = tensor
        elif kind != "constant_input":  # None or a number, which the program has in its place
            problems.append(f"an input of kind {kind!r}")

    outputs: list[str] = []
    for spec in _field(signature, "output_specs", list):
        kind, content = _union(spec)
        argument = _argument(_field(content, "arg", dict))
        if kind == "user_output" and isinstance(argument, Ref):
            outputs.append(argument.name)
        else:
            problems.append(
                f"an output of kind {kind!r} that is not a tensor computed by the network"
            )
    return _Signature(tuple(inputs), tuple(outputs), tensors, states, tuple(problems))


def _read_members(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of the archive by their path below its root folder, sample inputs left out."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            _check_members(listed, len(data), limits)
            members = {
                info.filename.partition("/")[2]: archive.read(info)
                for info in listed
                if "/sample_inputs/" not in info.filename  # a pickle
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


def _check_members(listed: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    """Sizes of members, before anything of them is read."""
    # torch writes members uncompressed; insisting on it keeps sizes honest.
    if any(info.compress_type != zipfile.ZIP_STORED for info in listed):
        raise ModelError("not a .pt2 file of torch.export.save: its members are compressed")
    if len({info.filename for info in listed}) < len(listed):
        raise ModelError("a member of the .pt2 archive is listed twice")
    if sum(info.file_size for info in listed) > size:
        raise ModelError("the members of the .pt2 archive overlap")
    for info in listed:
        if info.filename.endswith(".json"):
            limits.check("header_bytes", info.file_size, info.filename)


def _parse(members: Mapping[str, bytes], path: str) -> dict[str, Any]:
    if path not in members:
        raise ModelError(f"the .pt2 archive has no {path}")
    try:
        content = json.loads(members[path])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def _read_tensors(
    members: Mapping[str, bytes], folder: str, table: str
) -> dict[str, npt.NDArray[Any] | None]:
    """Tensors by state-dict name, which take no memory of their own; None for other dtypes."""
    tensors: dict[str, npt.NDArray[Any] | None] = {}
    for name, record in _field(_parse(members, f"{folder}/{table}"), "config", dict).items():
        if _field(record, "use_pickle", bool):
            raise ModelError(f"tensor {name!r} is pickled; pickles are never loaded")
        path = f"{folder}/{_field(record, 'path_name', str)}"
        if path not in members:
            raise ModelError(f"the .pt2 archive has no {path}")
        tensors[name] = _tensor(name, _field(record, "tensor_meta", dict), members[path])
    return tensors


def _tensor(name: str, meta: dict[str, Any], blob: bytes) -> npt.NDArray[Any] | None:
    dtype = _DTYPES.get(_field(meta, "dtype", int))
    if dtype is None or _field(meta, "layout", int) != _STRIDED:
        return None
    sizes = [_size(size) for size in _field(meta, "sizes", list)]
    strides = [_size(stride) for stride in _field(meta, "strides", list)]
    offset = _size(_field(meta, "storage_offset", dict))
    elements = len(blob) // dtype.itemsize
    if len(sizes) != len(strides) or len(sizes) > 8 or len(blob) % dtype.itemsize:
        raise ModelError(f"tensor {name!r}: sizes, strides and data do not belong together")
    if 0 in sizes:
        return None
    reach = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
    if reach > elements or math.prod(sizes) > _MAX_ELEMENTS:
        raise ModelError(
            f"tensor {name!r}: expected data for sizes {sizes}, strides {strides}, "
            f"offset {offset}, got {elements} elements"
        )
    flat = np.frombuffer(blob, dtype)[offset:]
    step_bytes = [step * dtype.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat, sizes, step_bytes, writeable=False)


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
    if kind == "as_optional_tensors" and isinstance(content, list):
        return [_argument(item) for item in content]
    if kind == "as_float" and content in ("Infinity", "-Infinity", "NaN"):
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


def _layout(meta: dict[str, Any]) -> Layout:
    """The layout of a program value."""
    sizes, strides = (_field(meta, key, list) for key in ("sizes", "strides"))
    shape = tuple(None if _union(size)[0] == "as_expr" else _size(size) for size in sizes)
    return Layout(shape, _examples(sizes), _examples(strides), _field(meta, "dtype", int))


def _examples(records: list[Any]) -> tuple[int, ...] | None:
    """Sizes or strides, the example's in place of symbolic ones; None where it has none."""
    numbers = []
    for record in records:
        kind, content = _union(record)
        if kind == "as_expr":
            record = content.get("hint") if isinstance(content, dict) else None
            if record is None:
                return None
        numbers.append(_size(record))
    return tuple(numbers)


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
