# SPDX-License-Identifier: Apache-2.0
"""Fuzzes archives of `torch.export.save`. Making the seeds needs PyTorch."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from typing import TYPE_CHECKING

from driver import Target, main
from mutations import alter_bytes, alter_json
from qppengine.importers.pt2 import read_pt2
from qppengine.importers.registry import to_graph
from qppengine.passes import optimize

if TYPE_CHECKING:
    from random import Random


def seeds() -> list[bytes]:
    """A network of many operations, and one of a batch norm and views of a tensor."""
    import torch
    from torch import nn

    class Everything(nn.Module):  # type: ignore[misc]
        """What the importers make something else of, above all."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.up = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
            self.tail = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.head(x)
            y = torch.cat([self.depthwise(y), nn.functional.max_pool2d(y, 3, 1, 1)], 1)
            y = nn.functional.interpolate(y[:, ::2], scale_factor=2, mode="bilinear")
            y = self.up(nn.functional.avg_pool2d(y, 2)) * 0.5 + 1
            y = nn.functional.hardswish(nn.functional.pad(y, (1, 0, 1, 0)))
            return y, torch.softmax(self.tail(y.mean((2, 3)).flatten(1)), -1)

    class Views(nn.Module):  # type: ignore[misc]
        """Reshapes, constants and in-place operations."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 1)
            self.register_buffer("scale", torch.rand(12, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x).relu_() * self.scale
            n, c, h, w = y.shape
            y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return nn.functional.pixel_shuffle(y, 2).clamp(0, 1)

    files = []
    for module in (Everything(), Views()):
        program = torch.export.export(module.eval(), (torch.rand(1, 3, 12, 16),))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        files.append(buffer.getvalue())
    return files


def mutate(data: bytes, rng: Random) -> bytes:
    """Alters bytes of the archive, or bytes, JSON or the name of one of its members."""
    kind = rng.randrange(8)
    if kind == 0:
        return alter_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # of a mutant, whatever it is
        return alter_bytes(data, rng)
    documents = [i for i, (name, _) in enumerate(members) if name.endswith(".json")]
    if not documents:
        return alter_bytes(data, rng)
    index = rng.randrange(len(members))
    name, content = members[index]
    if kind == 1:
        members[index] = (name, alter_bytes(content, rng))
    elif kind == 2:
        members[index] = (members[rng.randrange(len(members))][0], content)
    elif kind == 3:
        members += [members[index]] * rng.choice((1, 2, 20))
    else:
        index = rng.choice(documents)
        name, content = members[index]
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, (dict, list)):
            for _ in range(rng.choice((1, 1, 2, 4))):
                alter_json(document, rng)
            content = json.dumps(document).encode()
        members[index] = (name, content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def attempt(data: bytes) -> None:
    """Imports an archive as `from_torch` does."""
    optimize(to_graph(read_pt2(data)))


if __name__ == "__main__":
    main(Target("pt2", seeds, mutate, attempt))
