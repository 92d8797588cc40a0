# SPDX-License-Identifier: Apache-2.0
"""Changes to bytes and to JSON documents that fuzzers share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    import numpy as np

# What does not belong where it is put, or only just does.
JUNK: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 8, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31),
    *(2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 2**70, 0.0, 0.5, -1.5, 1e-30, 1e30, 1e308),
    *("", "x", "none", "relu", "clamp", "nearest", "\0", "\ud800", "a" * 5000),
    *([], [[]], [0, 0], [1, 1], [3, 3], [2**62, 2**62], [1] * 100, {}, {"a": 3}),
]


def alter_bytes(data: bytes, rng: Random) -> bytes:
    """Changes bits, removes, repeats or moves a run of bytes, or overwrites it with a number."""
    altered = bytearray(data)
    start = rng.randrange(len(data) + 1)
    run = slice(start, start + rng.choice((1, 2, 4, 8, 16, 64, 1024)))
    kind = rng.randrange(5)
    if kind == 0 and data:
        altered[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del altered[run]
    elif kind == 2:
        altered[start:start] = altered[run] * rng.choice((1, 2, 100))
    elif kind == 3:
        target = rng.randrange(len(data) + 1)
        altered[target : target + len(altered[run])] = altered[run]
    else:
        number = rng.choice((0, 1, 2**8 - 1, 2**15, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
        size = rng.choice((1, 2, 4, 8))
        altered[start : start + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(altered)


def alter_json(document: Any, rng: Random) -> None:
    """Changes one place of a JSON document, which is an object or a list: the value, its place."""
    places = find_places(document)
    if not places:
        return
    container, key = rng.choice(places)
    other, other_key = rng.choice(places)
    kind = rng.randrange(7)
    value = container[key]
    if kind == 0:
        container[key] = copy.deepcopy(rng.choice(JUNK))
    elif kind == 1:
        container[key] = copy.deepcopy(other[other_key])
    elif kind == 2:
        container[key], other[other_key] = copy.deepcopy((other[other_key], value))
    elif kind == 3:
        del container[key]
    elif kind == 4 and isinstance(container, list):
        container[key:key] = [copy.deepcopy(value)] * rng.choice((1, 2, 50))
    elif kind == 5 and isinstance(value, int):
        container[key] = rng.choice((value + 1, value - 1, value * 2, -value, value << 20))
    else:
        for _ in range(rng.choice((1, 2, 100))):
            value = [value] if rng.random() < 0.8 else {"a": value}
        container[key] = value


def replace_value(document: Any, junk: Sequence[Any], rng: np.random.Generator) -> None:
    """Replaces one value of a JSON document, most often one without values in it, by junk."""
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[rng.integers(len(keys))]
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.15:
            break
        node = node[key]
    node[key] = junk[int(rng.integers(len(junk)))]


def find_places(document: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON document: a container and a key or index."""
    places: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        container = pending.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        places += [(container, key) for key in keys]
        pending += [container[key] for key in keys if isinstance(container[key], (dict, list))]
    return places
