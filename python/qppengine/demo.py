# SPDX-License-Identifier: Apache-2.0
"""Super-resolution of real photographs, quantized in every scheme: a table and a picture.

Imports a trained ESPCN from its ``.pt2`` file, calibrates, saves and runs it. The photographs whose
PSNR it reports were used neither for training nor for calibration.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine import metrics, photos, reference
from qppengine.calibrate import calibrate
from qppengine.errors import Error
from qppengine.importers import from_torch
from qppengine.paths import write_file
from qppengine.regression import fit
from qppengine.save import save
from qppengine.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from qppengine.graph import Graph
    from qppengine.ir import Array

ALPHA = 0.9998  # the paper's for super-resolution
CALIBRATION_SAMPLES = 300
EXPOSURES = 3  # of every test photograph
BITS = (8, 4)
SEED = 1
TOLERANCE = 1.0  # dB that a better method may fall below a simpler one before `check` complains


@dataclass(frozen=True)
class Scheme:
    """One line of the table: how a session is opened."""

    label: str
    scheme: str
    options: dict[str, Any] = field(default_factory=dict)


SCHEMES = (
    Scheme("static, mean of the calibration set", "static", {"static_bounds": "mean"}),
    Scheme("static, range of the calibration set", "static", {"static_bounds": "range"}),
    Scheme("static, fitted", "static", {"static_bounds": "fitted"}),
    Scheme("dynamic", "dynamic"),
    Scheme("QPP", "qpp"),
)


def main(folder: Path, upscale: int = 3, progress: bool = True) -> dict[str, Any]:
    """Runs the demo and returns its report.

    Writes a model for each number of bits and ``espcn_x{upscale}.png`` into ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    threads = os.cpu_count() or 1
    graph = import_espcn(upscale)
    samples = photos.calibration_samples(upscale, count=CALIBRATION_SAMPLES)
    with ThreadPoolExecutor(threads) as executor:
        calibration = calibrate(graph, samples, ALPHA, executor=executor, progress=progress)
    models = {bits: folder / f"espcn_x{upscale}_{bits}bit.qpp" for bits in BITS}
    for bits, model in models.items():
        save(model, graph, fit(calibration, bits=bits))

    pairs = list(photos.pairs("test", upscale, seed=SEED, exposures=EXPOSURES))
    sessions = {
        ("fp16", "fp16"): Session(models[8], "fp16", threads=threads),
        **{
            (f"W8A{bits}", row.label): Session(
                models[bits], row.scheme, activation_bits=bits, threads=threads, **row.options
            )
            for bits in BITS
            for row in SCHEMES
        },
    }
    results = Results(upscale)
    for pair in _with_progress(pairs, progress):
        x = pair.low[None, None]
        fp32 = reference.run(graph, x)[0]
        results.add(("", "bicubic"), photos.upscale_bicubic(pair.low, upscale), fp32, pair)
        results.add(("FP32", "FP32 (NumPy)"), fp32, fp32, pair)
        for key, session in sessions.items():
            results.add(key, session.run(x), fp32, pair)

    rows = []
    for key in results.labels:
        memory = sessions[key].memory() if key in sessions else None
        rows.append(
            {
                "type": key[0],
                "scheme": key[1],
                "psnr_truth": round(results.mean(key, "truth"), 2),
                "psnr_fp32": _rounded(results.mean(key, "fp32")),
                "model_bytes": memory["weights"] if memory else None,
                "arena_bytes": memory["arena"] if memory else None,
            }
        )
    picture = folder / f"espcn_x{upscale}.png"
    draw(picture, graph, sessions, pairs, upscale)
    return {
        "network": f"ESPCN, {upscale} times up, from a .pt2 file of PyTorch",
        "calibration": f"{CALIBRATION_SAMPLES} crops of {_listed('train', 'calibration')}",
        "test": f"{_listed('test')}; {EXPOSURES} exposures each",
        "exposure": f"gain exp(N(0, {photos.GAIN_SIGMA})), offset N(0, {photos.OFFSET_SIGMA}), "
        f"clipped to [0, {photos.SATURATION}] of nominal white",
        "psnr": "in dB to a peak of 1, mean over the test images",
        "results": rows,
        "gap_closed": {
            f"W8A{bits}": f"QPP gains {100 * results.gap_closed(bits):.0f} % of the dB between the "
            "better static row and dynamic (against FP32)"
            for bits in BITS
        },
        "clamped_predictions": _count_clamped(sessions),
        "written": [*map(str, models.values()), str(picture)],
    }


def check(report: dict[str, Any]) -> None:
    """Raises `Error` for numbers that show a fault of the engine.

    For the network and the photographs of the package, QPP and dynamic must be better than static,
    and fp16 better than all of them.
    """
    psnr = {(row["type"], row["scheme"]): row["psnr_fp32"] for row in report["results"]}
    fp16 = psnr["fp16", "fp16"]
    problems = []
    for bits in BITS:
        dynamic, qpp = (psnr[f"W8A{bits}", label] for label in ("dynamic", "QPP"))
        static = max(psnr[f"W8A{bits}", row.label] for row in SCHEMES if row.scheme == "static")
        for better, worse, margin in (
            ("QPP", "the better static row", qpp - static),
            ("dynamic", "the better static row", dynamic - static),
            ("fp16", "dynamic", fp16 - dynamic),
        ):
            if margin < -TOLERANCE:
                problems.append(f"W8A{bits}: {better} is {-margin:.1f} dB below {worse}")
    if problems:
        raise Error(
            f"the results contradict the expected order: {'; '.join(problems)}; run `make test` "
            f"or `qppengine doctor` to find the faulty part of the installation"
        )


def import_espcn(upscale: int) -> Graph:
    """The trained ESPCN that comes with the package; `upscale` is 2 or 3."""
    with as_file(files("qppengine") / "models" / f"espcn_x{upscale}.pt2") as path:
        return from_torch(path)


class Results:
    """PSNR of every row of the table on every test photograph."""

    def __init__(self, upscale: int) -> None:
        self._border = upscale
        self._psnr: dict[tuple[str, str], dict[str, list[float]]] = {}

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Type and scheme of the rows, in the order in which they were added."""
        return tuple(self._psnr)

    def add(self, key: tuple[str, str], output: Array, fp32: Array, pair: photos.Pair) -> None:
        """Adds an output for `pair`, ``[..., H, W]``, against the truth and the FP32 output."""
        row = self._psnr.setdefault(key, {"truth": [], "fp32": []})
        image = np.squeeze(output)
        row["truth"].append(metrics.psnr(image, pair.high, border=self._border))
        row["fp32"].append(metrics.psnr(image, np.squeeze(fp32), border=self._border))

    def mean(self, key: tuple[str, str], against: str) -> float:
        """Mean over the photographs, in dB."""
        return float(np.mean(self._psnr[key][against]))

    def gap_closed(self, bits: int) -> float:
        """Share of the dB between the better static row and dynamic that QPP gains."""
        mean = {row.label: self.mean((f"W8A{bits}", row.label), "fp32") for row in SCHEMES}
        static = max(mean[row.label] for row in SCHEMES if row.scheme == "static")
        return (mean["QPP"] - static) / (mean["dynamic"] - static)


def draw(
    path: Path,
    graph: Graph,
    sessions: dict[tuple[str, str], Session],
    pairs: Sequence[photos.Pair],
    upscale: int,
) -> None:
    """Crops of the brightest photograph, and of the darkest of another one, side by side."""
    from matplotlib.figure import Figure

    brightest = max(pairs, key=lambda pair: pair.gain)
    others = [pair for pair in pairs if pair.name != brightest.name]
    chosen = (brightest, min(others, key=lambda pair: pair.gain))
    figure = Figure(figsize=(17.5, 6.6), layout="constrained")
    axes = figure.subplots(len(chosen), 3 + len(SCHEMES) - 1)  # all but dynamic
    for line, pair in zip(axes, chosen, strict=True):
        x = pair.low[None, None]
        columns = {
            f"{pair.name}, gain {pair.gain:.2f}\nlow resolution": pair.low,
            "bicubic": photos.upscale_bicubic(pair.low, upscale),
            "FP32": reference.run(graph, x)[0],
            **{
                row.label.replace(", ", "\n") + " W8A4": sessions["W8A4", row.label].run(x)
                for row in SCHEMES
                if row.scheme != "dynamic"
            },
        }
        for axis, (title, image) in zip(line, columns.items(), strict=True):
            crop = _crop(np.squeeze(image), scale=1 if image is pair.low else upscale)
            if image is not pair.low:
                title += f"\n{metrics.psnr(np.squeeze(image), pair.high, border=upscale):.1f} dB"
            axis.imshow(crop, cmap="gray", vmin=0, vmax=pair.high.max(), interpolation="nearest")
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80)
    write_file(path, data.getvalue())


def _crop(image: Array, scale: int, side: int = 56) -> Array:
    """The middle of an image: `side` low-resolution pixels square, at `scale` times that size."""
    top, left = ((extent // scale - side) // 2 * scale for extent in image.shape)
    return image[top : top + side * scale, left : left + side * scale]


def _count_clamped(sessions: dict[tuple[str, str], Session]) -> dict[str, str]:
    counts: dict[str, str] = {}
    for (bits, label), session in sessions.items():
        if session.scheme == "qpp":
            stats = session.stats()
            counts[f"{bits} {label}"] = (
                f"{sum(stats['clamped_predictions'].values())} of {stats['predictions']}"
            )
    return counts


def _listed(*splits: photos.Split) -> str:
    return ", ".join(name for split in splits for name in photos.names(split))


def _rounded(decibel: float) -> float | None:
    return round(decibel, 2) if np.isfinite(decibel) else None


def _with_progress(pairs: Iterable[photos.Pair], progress: bool) -> Iterable[photos.Pair]:
    from tqdm import tqdm

    bar: Iterable[photos.Pair] = tqdm(pairs, "photographs", disable=not progress, leave=False)
    return bar
