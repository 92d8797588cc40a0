# SPDX-License-Identifier: Apache-2.0
"""Limits of the sizes that a file can ask for, in importers and in the engine.

``cpp/base/limits.h`` has the same fields with the same defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from qppengine.errors import ModelError, UnsupportedError

# Upper ends of the limits, up to which the arithmetic that relies on them does not overflow.
MAXIMA = {
    "header_bytes": 2**40,
    "nesting": 200,
    "json_values": 2**40,
    "name_bytes": 2**20,
    "nodes": 100_000_000,
    "inputs": 2**20,
    "outputs": 2**20,
    "rank": 32,
    "dimension": 2**31,
    "window": 2**20,
    "constant_bytes": 2**40,
    "computed_bytes": 2**40,
    "sharing": 2**20,
    "packing": 2**20,
    "packed_bytes": 2**40,
    "value_elements": 2**40,
}


@dataclass(frozen=True)
class Limits:
    """Limits for files from untrusted sources.

    The defaults are far above any real network, and keep the cost of a file proportional to its
    size. An error names the limit that a file exceeds; pass other limits, as in
    ``from_onnx(path, limits=Limits(nodes=500_000))``, for files that can be trusted.

    Attributes:
        header_bytes: Bytes of the text that describes a network: the header of a model file,
            ``models/model.json`` of a ``.pt2`` archive.
        nesting: Depth of lists and objects in that text, and of functions and subgraphs of an ONNX
            model that call or hold each other.
        json_values: Values in the description of one node of a model file, or of everything except
            nodes.
        name_bytes: Bytes of the name of a node, value or tensor.
        nodes: Nodes of a network, with all functions that it calls expanded.
        inputs: Inputs of a network.
        outputs: Outputs of a network.
        rank: Dimensions of a constant.
        dimension: Size of one dimension, of whatever has dimensions.
        window: Kernel size, stride, padding and dilation, in either direction; groups.
        constant_bytes: Bytes of all constants as float32, those that are computed at import among
            them; a constant counts once for every node that reads it.
        computed_bytes: Bytes of the constants that are computed at import, beyond four times the
            size of the file.
        sharing: Elements of all constants of a model file, each counted for every node that reads
            it, as a multiple of the elements that the file holds; eight million are allowed in any
            case.
        packing: Bytes of all constants of a session, as kernels read them, as a multiple of those
            that the file holds; 64 MB are allowed in any case.
        packed_bytes: Bytes of all constants of a session, as kernels read them.
        value_elements: Elements of one value of a run.

    Raises `UnsupportedError` for a number below 1 or above `MAXIMA`.
    """

    header_bytes: int = 2**26
    nesting: int = 64
    json_values: int = 2**18
    name_bytes: int = 4096
    nodes: int = 20_000
    inputs: int = 4096
    outputs: int = 4096
    rank: int = 8
    dimension: int = 2**24
    window: int = 2**16
    constant_bytes: int = 2**32
    computed_bytes: int = 2**25
    sharing: int = 2
    packing: int = 16
    packed_bytes: int = 2**33
    value_elements: int = 2**36

    def __post_init__(self) -> None:
        for item in fields(self):
            number = getattr(self, item.name)
            if type(number) is not int or not 1 <= number <= MAXIMA[item.name]:
                raise UnsupportedError(
                    f"limits.{item.name}: expected an integer from 1 to {MAXIMA[item.name]}, "
                    f"got {number!r}"
                )

    def check(self, limit: str, found: int, where: str) -> None:
        """Raises `ModelError`, whose text begins with `where`, if `found` exceeds the limit."""
        allowed = getattr(self, limit)
        if found > allowed:
            raise ModelError(
                f"{where}: {found} exceeds the limit {limit} = {allowed}; pass "
                f"limits=Limits({limit}=...) with more if the file can be trusted"
            )


DEFAULT_LIMITS = Limits()
