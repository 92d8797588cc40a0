# SPDX-License-Identifier: Apache-2.0
"""Constants of ONNX files as arrays: stored in the model, or in files next to it."""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qppengine.errors import FileError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

    from qppengine.limits import Limits

# By ONNX's number of an element type: NumPy's, and the field that holds elements one by one.
_TYPES = {
    1: ("<f4", "float_data"),
    2: ("u1", "int32_data"),
    3: ("i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
    16: ("<u2", "int32_data"),  # bfloat16: the upper half of a float32
}
_FLOAT16, _BFLOAT16 = 10, 16


class TensorReader:
    """The constants of a model, read when they are asked for."""

    def __init__(
        self, tensors: Iterable[onnx.TensorProto], folder: Path | None, limits: Limits
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._files: dict[str, bytes] = {}
        self._arrays: dict[str, npt.NDArray[Any] | None] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}
        for tensor in tensors:
            if not tensor.name or tensor.name in self._tensors:
                raise ModelError(f"constant {tensor.name!r} is defined twice, or has no name")
            self._tensors[tensor.name] = tensor

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __getitem__(self, name: str) -> npt.NDArray[Any] | None:
        """An array by name; None where its elements are no numbers of 8 to 64 bits."""
        if name not in self._arrays:
            self._arrays[name] = self.read(self._tensors[name])
        return self._arrays[name]

    @property
    def external_bytes(self) -> int:
        """The size of the files next to the model that it names."""
        names = {
            entry.value
            for tensor in self._tensors.values()
            if tensor.data_location == tensor.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
        return sum(self._external_path(name).stat().st_size for name in names)

    def read(self, tensor: onnx.TensorProto) -> npt.NDArray[Any] | None:
        """The array of a tensor; None where its elements are no numbers of 8 to 64 bits."""
        label = f"constant {tensor.name!r}"
        shape = tuple(tensor.dims)
        self._limits.check("rank", len(shape), label)
        self._limits.check("dimension", max(shape, default=0), label)
        if min(shape, default=0) < 0:
            raise ModelError(f"{label} has a negative size: {list(shape)}")
        if tensor.data_type not in _TYPES:
            return None
        kind, name = _TYPES[tensor.data_type]
        dtype = np.dtype(kind)
        count = math.prod(shape)
        self._limits.check("constant_bytes", 4 * count, label)
        if tensor.data_location == tensor.EXTERNAL:
            array = np.frombuffer(self._external(tensor, count * dtype.itemsize), dtype)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
            if len(raw) != count * dtype.itemsize:
                raise ModelError(
                    f"{label} of shape {list(shape)} needs {count * dtype.itemsize} bytes, "
                    f"the model holds {len(raw)}"
                )
            array = np.frombuffer(raw, dtype)
        else:
            array = _from_numbers(tensor, name, dtype, label, count)
        if tensor.data_type == _BFLOAT16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return np.require(array.reshape(shape), requirements="A")

    def _external(self, tensor: onnx.TensorProto, size: int) -> memoryview:
        """The bytes of a tensor in a file next to the model."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError as error:
            raise ModelError(f"constant {tensor.name!r}: {error}") from error
        path = self._external_path(location)
        if location not in self._files:
            self._files[location] = path.read_bytes()
        data = self._files[location]
        if length != size or not 0 <= offset <= len(data) - size:
            raise ModelError(
                f"constant {tensor.name!r}: expected {size} bytes at {offset} of {location!r}, "
                f"which has {len(data)}; the model names {length}"
            )
        return memoryview(data)[offset : offset + size]

    def _external_path(self, location: str) -> Path:
        """Where a file of weights is: in the folder of the model, and nowhere else."""
        if self._folder is None:
            raise ModelError(
                "the weights are in a file of their own; give the path of the model instead of its "
                "bytes"
            )
        try:
            folder = self._folder.resolve()
            path = (folder / location).resolve()
            if not location or not path.is_relative_to(folder) or Path(location).is_absolute():
                raise ModelError(
                    f"the model names {location!r} as a file of weights; expected one in its folder"
                )
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileError(f"cannot read weights from {location!r}: not a regular file")
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, (FileError, ModelError)):
                raise
            raise ModelError(f"cannot read weights from {location!r}: {error}") from error
        return path


def _from_numbers(
    tensor: onnx.TensorProto, name: str, dtype: np.dtype[Any], label: str, count: int
) -> npt.NDArray[Any]:
    """The elements that a tensor lists one by one."""
    numbers = getattr(tensor, name)
    if len(numbers) != count:
        raise ModelError(
            f"{label} of shape {list(tensor.dims)} needs {count} elements, the model holds "
            f"{len(numbers)}"
        )
    if name in ("float_data", "double_data"):
        return np.fromiter(numbers, dtype, count)
    wide = np.fromiter(numbers, np.uint64 if name == "uint64_data" else np.int64, count)
    if tensor.data_type == _FLOAT16:
        return wide.astype(np.uint16).view(dtype)
    return wide.astype(dtype)
