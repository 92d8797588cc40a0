# SPDX-License-Identifier: Apache-2.0
"""Writes the models of the tests in this folder, and their expected results, from this host.

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
    from qppengine.ir import Array

MODEL = "espcn_x3.qpp"
SIGNATURES = "signatures.json"
FP16_OUTPUT = "fp16.npy"

SCHEMES = ("static", "dynamic", "qpp")
BITS = (8, 4)

# Small networks of the paper's kinds, quantized throughout, so that every byte can be compared, and
# with their ends in fp16.
NETWORKS = ("resnet", "hrnet")
LAYERS = "layers.json"  # CRC-32 of the outputs of all steps, in order
OUTPUTS = "outputs.npz"  # of the networks with ends in fp16


def fixed_image(height: int = 24, width: int = 32) -> Array:
    """A gradient with noise, [1, 1, height, width], by integer arithmetic: the same everywhere."""
    index = np.arange(height * width, dtype=np.uint32)
    noise = (index * np.uint32(2654435761)) >> np.uint32(27)  # 0 to 31
    gradient = index * np.uint32(224) // np.uint32(height * width)
    pixels = np.asarray((noise + gradient) / 256, np.float32)  # exact
    return pixels.reshape(1, 1, height, width)


def fixed_rgb() -> Array:
    """Such an image for the small networks, [1, 3, 32, 64]."""
    return fixed_image(3 * 32, 64).reshape(1, 3, 32, 64)


def sign_layers(session: qe.Session) -> list[tuple[str, str, int]]:
    """Name, dtype and CRC-32 of the output of every step."""
    return [
        (stored.value, stored.stored.dtype.name, zlib.crc32(stored.stored.tobytes()))
        for stored in session.observe(fixed_rgb())
    ]


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
    write_networks(folder)


def write_networks(folder: Path) -> None:
    """Calibrates the small networks and runs them in every scheme."""
    import torch
    from qppengine import photos
    from qppengine.models.hrnet import HRNetV2
    from qppengine.models.resnet import ResNet

    samples = list(photos.rgb_samples("calibration", 32, 64, 16))
    layers: dict[str, Any] = {}
    outputs: dict[str, Array] = {}
    for name in NETWORKS:
        torch.manual_seed(3)
        module: Any = (
            ResNet((1, 1, 1, 1), width=8, classes=10)
            if name == "resnet"
            else HRNetV2(5, width=8, modules=(1, 1, 1), blocks=1)
        )
        with torch.no_grad():  # batch normalizations see the samples
            module.train()(torch.from_numpy(np.concatenate(samples)))
        graph = qe.from_torch(module.eval(), samples[0])
        for kind, kept in (
            ("int8", graph),
            ("fp16_ends", qe.keep_fp16(graph, skip_first=True, skip_last=True)),
        ):
            calibration = qe.calibrate(kept, samples, 1.0, positions="auto", progress=False)
            path = folder / f"{name}_{kind}.qpp"
            qe.save(path, kept, calibration)
            for scheme in SCHEMES:
                session = qe.Session(path, scheme, algorithm="direct")
                if kind == "int8":
                    layers[f"{name}/{scheme}"] = sign_layers(session)
                else:
                    outputs[f"{name}/{scheme}"] = session.run(fixed_rgb())
    (folder / LAYERS).write_text(json.dumps(layers))
    np.savez(folder / OUTPUTS, **outputs)  # type: ignore[arg-type]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_models(target)
