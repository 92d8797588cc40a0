# SPDX-License-Identifier: Apache-2.0
"""Writes what the tests of this folder run, and what they have to come to, computed on this host.

python tests/python/device/make_models.py FOLDER
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import qppengine as qe

if TYPE_CHECKING:
    from qppengine.graph import Array

MODEL = "espcn_x3.qpp"
SIGNATURES = "signatures.json"
FP16_OUTPUT = "fp16.npy"

SCHEMES = ("static", "dynamic", "qpp")
BITS = (8, 4)


def fixed_image(height: int = 24, width: int = 32) -> Array:
    """A gradient with noise, [1, 1, height, width], by integer arithmetic: the same everywhere."""
    index = np.arange(height * width, dtype=np.uint32)
    noise = (index * np.uint32(2654435761)) >> np.uint32(27)  # 0 to 31
    gradient = index * np.uint32(224) // np.uint32(height * width)
    pixels = np.asarray((noise + gradient) / 256, np.float32)  # exact
    return pixels.reshape(1, 1, height, width)


def sign(session: qe.Session, x: Array) -> dict[str, int]:
    """CRC-32 of the output and of the bounds it was quantized with."""
    output = session.run(x)
    bounds = session.qparams() + np.float32(0)  # of two equal zeros one may be negative
    return {"output": zlib.crc32(output.tobytes()), "bounds": zlib.crc32(bounds.tobytes())}


def write_models(folder: Path) -> None:
    """Calibrates ESPCN on photographs and runs it in every scheme."""
    from qppengine import models, photos

    graph = qe.from_torch(Path(models.__file__).parent / "espcn_x3.pt2")
    samples = photos.calibration_samples(3, count=32, size=48)
    path = folder / MODEL
    qe.save(path, graph, qe.calibrate(graph, samples, 0.9998, progress=False))

    x = fixed_image()
    signatures: dict[str, Any] = {"input": zlib.crc32(x.tobytes())}
    for scheme in SCHEMES:
        for bits in BITS:
            session = qe.Session(path, scheme, activation_bits=bits, algorithm="direct")
            signatures[f"{scheme}/{bits}"] = sign(session, x)
    (folder / SIGNATURES).write_text(json.dumps(signatures, indent=2))
    np.save(folder / FP16_OUTPUT, qe.Session(path, "fp16").run(x))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_models(target)
