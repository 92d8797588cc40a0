# SPDX-License-Identifier: Apache-2.0
"""The commands that run or describe models: run, inspect, compare, bench."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from qppengine import metrics, reference
from qppengine.cli.files import IMPORTERS, load_array, load_network
from qppengine.cli.group import main
from qppengine.cli.options import (
    FILE,
    TARGET,
    input_option,
    json_option,
    scheme_option,
    size_option,
    with_session_options,
)
from qppengine.cli.report import describe_graph, describe_steps, finite, print_report, text_of
from qppengine.errors import UnsupportedError
from qppengine.exporters import to_dot, to_onnx
from qppengine.model_file import is_calibrated, load_graph
from qppengine.paths import write_file
from qppengine.session import SCHEMES, Session, StoredValue, is_emulated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qppengine.ir import Array


@main.command()
@click.argument("model", type=FILE)
@input_option
@click.option(
    "-o", "--output", type=TARGET, help="The .npy file to write; .npz for several outputs."
)
@scheme_option
@with_session_options
@json_option
def run(
    model: Path,
    inputs: Sequence[Path],
    output: Path | None,
    scheme: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a .qpp file on an input."""
    session = Session(model, scheme, **options)
    outputs = _outputs(session, [load_array(path) for path in inputs])
    if output is not None:
        file = io.BytesIO()
        if len(outputs) == 1:
            np.save(file, next(iter(outputs.values())))
        else:
            np.savez(file, allow_pickle=False, **outputs)
        write_file(output, file.getvalue())
    print_report(
        {
            "scheme": scheme,
            "outputs": [
                {
                    "output": name,
                    "shape": list(y.shape),
                    "min": finite(y.min()),
                    "mean": finite(y.mean()),
                    "max": finite(y.max()),
                }
                for name, y in outputs.items()
            ],
            "clamped_predictions": session.stats()["clamped_predictions"],
            "widened_bounds": session.stats()["widened_bounds"],
            "memory": dict(session.memory()),
        },
        as_json,
    )


@main.command()
@click.argument("model", type=FILE)
@scheme_option
@size_option
@click.option("--dot", type=TARGET, help="Also draw the graph, as text for Graphviz.")
@click.option("--onnx", type=TARGET, help="Also write a .qpp file as a quantized ONNX model.")
@with_session_options
@json_option
def inspect(
    model: Path,
    scheme: str,
    size: tuple[int, int] | None,
    dot: Path | None,
    onnx: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Show the nodes and kernels of a model.

    MODEL is a .pt2, .onnx or .qpp file. Kernels and memory are shown for .qpp files only. --size
    adds the shapes of the steps, their multiply-accumulates, the bytes that they read and write
    (constants included), and the size of the arena.
    """
    graph = load_network(model)
    if dot is not None:
        write_file(dot, to_dot(graph).encode())
    if onnx is not None:
        write_file(onnx, to_onnx(model, options["static_bounds"]).SerializeToString())
    report = describe_graph(graph)
    if model.suffix not in IMPORTERS:
        scheme = scheme if scheme in _schemes(model) else "fp16"
        session = _open(model, scheme, options)
        if size is not None:
            session.prepare(*(_close(value.shape, size) for value in session.inputs))
        steps = session.explain()
        report |= {
            "scheme": scheme,
            "steps": describe_steps(steps),
            "totals": {key: sum(step[key] for step in steps) for key in ("macs", "bytes")},
            "memory": dict(session.memory()),
        }
    print_report(report, as_json)


@main.command()
@click.argument("model", type=FILE)
@input_option
@with_session_options
@json_option
def compare(model: Path, inputs: Sequence[Path], as_json: bool, **options: Any) -> None:
    """Compare the schemes of a .qpp file with its float32 reference.

    psnr is in dB relative to a peak of 1, sqnr in dB relative to the energy of the reference. The
    table of layers shows the sqnr of every value in this run, so that errors add up along the
    network. Values that exist as int8 and fp16 are shown as int8. --density adds the share of
    outliers of each value.
    """
    arrays = [load_array(path) for path in inputs]
    rows = []
    expected: dict[str, Array] = {}
    layers: dict[str, dict[str, Any]] = {}
    schemes = _schemes(model)
    for scheme in schemes:
        session = _open(model, scheme, options)
        outputs = _outputs(session, arrays)
        # After the first run, which has checked the inputs.
        expected = expected or reference.run_all(load_graph(model), *arrays)
        rows += [
            {
                "scheme": scheme,
                "output": name,
                "sqnr": finite(metrics.sqnr(y, expected[name])),
                "psnr": finite(metrics.psnr(y, expected[name])),
                "max_error": finite(np.abs(y - expected[name]).max()),
            }
            for name, y in outputs.items()
        ]
        for value, stored in _stored_values(session, arrays).items():
            layer = layers.setdefault(value, {"value": value})
            layer[f"{scheme} dtype"] = stored[0].stored.dtype.name
            numbers = np.concatenate([one.numbers for one in stored])
            layer[scheme] = finite(metrics.sqnr(numbers, expected[value]), digits=1)
            if densities := [one.density for one in stored if one.density is not None]:
                layer[f"{scheme} density"] = finite(np.mean(densities))
    columns = ("", " dtype") if options["density"] is None else ("", " dtype", " density")
    names = [scheme + column for scheme in schemes for column in columns]
    table = [
        {"value": value, **{name: layers[value].get(name) for name in names}}
        for value in expected
        if value in layers
    ]
    print_report(
        {
            "activation_bits": options["activation_bits"],
            "schemes": rows,
            "layers_sqnr": table,
        },
        as_json,
    )


def _stored_values(session: Session, arrays: Sequence[Array]) -> dict[str, list[StoredValue]]:
    """All stored values by name, one per sample: in int8 where the value exists in int8."""
    observed = session.observe(*arrays)
    int8 = {one.value for one in observed if one.stored.dtype == np.int8}
    values: dict[str, list[StoredValue]] = {}
    for one in observed:
        if one.stored.dtype == np.int8 or one.value not in int8:
            values.setdefault(one.value, []).append(one)
    return values


@main.command()
@click.argument("model", type=FILE)
@size_option
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice(SCHEMES),
    multiple=True,
    help="Can be repeated; by default all schemes of the file.",
)
@click.option("--iters", type=click.IntRange(1), default=20, show_default=True, help="Timed runs.")
@click.option("--profile", is_flag=True, help="Show the steps of the last scheme.")
@click.option("--trace", type=TARGET, help="Write these steps to a file for chrome://tracing.")
@with_session_options
@json_option
def bench(
    model: Path,
    size: tuple[int, int] | None,
    schemes: tuple[str, ...],
    iters: int,
    profile: bool,
    trace: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the speed and memory of the schemes of a .qpp file.

    Every scheme runs once to warm up and then --iters times on noise. Timing is not available under
    emulation.
    """
    if trace is not None and is_emulated():
        raise UnsupportedError("--trace: timing is not available under emulation")
    rows: list[dict[str, Any]] = []
    for scheme in schemes or _schemes(model):
        session = _open(model, scheme, options)
        rng = np.random.default_rng(0)
        inputs = [
            rng.random(_close(value.shape, size or (64, 64)), np.float32)
            for value in session.inputs
        ]
        times = _time(lambda session=session, inputs=inputs: session.run(*inputs), iters)  # type: ignore[misc]
        rows.append({"scheme": scheme, **times, **session.memory()})
    report: dict[str, Any] = {
        "input": [text_of(x.shape) for x in inputs],
        "iters": iters,
        "threads": options["threads"],
        "times": "not measured (emulated)" if is_emulated() else "milliseconds",
        "schemes": rows,
    }
    if profile or trace is not None:
        steps = session.profile(*inputs, runs=iters)
        if profile:
            report["steps"] = describe_steps(steps.rows)
        if trace is not None:
            write_file(trace, json.dumps(steps.trace()).encode())
    print_report(report, as_json)


def _schemes(model: Path) -> tuple[str, ...]:
    """The schemes that a model file can run in."""
    return SCHEMES if is_calibrated(model) else ("fp16",)


def _open(model: Path, scheme: str, options: dict[str, Any]) -> Session:
    """A session for one of several schemes, of which "fp16" has no dense + sparse values."""
    return Session(model, scheme, **options | ({"density": None} if scheme == "fp16" else {}))


def _outputs(session: Session, inputs: Sequence[Array]) -> dict[str, Array]:
    outputs = session.run(*inputs)
    named = outputs if isinstance(outputs, tuple) else (outputs,)
    return dict(zip(session.outputs, named, strict=True))


def _time(work: Callable[[], Any], iterations: int) -> dict[str, float | None]:
    """Runs once to warm up and then times every run, in milliseconds."""
    work()
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    if is_emulated():
        return {"median": None, "min": None}
    return {"median": round(float(np.median(times)), 4), "min": round(min(times), 4)}


def _close(shape: Sequence[int | None], size: tuple[int, int]) -> tuple[int, int, int, int]:
    n, c, h, w = (known or given for known, given in zip(shape, (1, 1, *size), strict=True))
    return n, c, h, w
