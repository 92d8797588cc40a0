# SPDX-License-Identifier: Apache-2.0
"""Samples that a network is measured on, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qppengine.ir import InputInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qppengine.graph import Graph


def with_open_batch(graph: Graph) -> Graph:
    """The graph for batches of any size: samples are measured one by one."""
    inputs = tuple(InputInfo(value.name, (None, *value.shape[1:])) for value in graph.inputs)
    return replace(graph, inputs=inputs)


def split_batches(samples: Iterable[Any]) -> Iterator[Any]:
    """The images of every batch one by one; `Session.run` refuses anything but batches."""
    for sample in samples:
        names = tuple(sample) if isinstance(sample, Mapping) else None
        if names is not None:
            arrays = tuple(sample[name] for name in names)
        else:
            arrays = sample if isinstance(sample, tuple) else (sample,)
        shapes: list[Any] = [getattr(array, "shape", ()) for array in arrays]
        sizes = {shape[0] if len(shape) == 4 else 0 for shape in shapes}
        if len(sizes) != 1 or sizes <= {0, 1}:
            yield sample
            continue
        for i in range(sizes.pop()):
            images = tuple(array[i : i + 1] for array in arrays)
            yield images if names is None else dict(zip(names, images, strict=True))


def with_progress(samples: Iterable[Any], progress: bool, name: str) -> Iterable[Any]:
    """The samples, with a bar that counts them if `progress`."""
    if not progress:
        return samples
    try:
        from tqdm import tqdm
    except ImportError:  # the bar is a convenience
        return samples
    total = len(samples) if isinstance(samples, Sized) else None
    bar: Iterable[Any] = tqdm(samples, name, total, unit=" samples", leave=False)
    return bar
