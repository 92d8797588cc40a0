# SPDX-License-Identifier: Apache-2.0
"""The command line. Every command prints a report, as a table or, with ``--json``, for programs."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

from qppengine import metrics, reference
from qppengine.calibrate import DENSITIES, calibrate
from qppengine.errors import Error, FileError, ModelError, UnsupportedError
from qppengine.exporters import to_dot, to_onnx
from qppengine.importers import from_onnx, from_torch
from qppengine.model_file import load_graph
from qppengine.passes import keep_fp16
from qppengine.paths import write_file
from qppengine.quantization import Calibration
from qppengine.regression import fit
from qppengine.save import save
from qppengine.session import (
    SCHEMES,
    Session,
    StoredValue,
    __version__,
    cores,
    cpu_features,
    is_emulated,
    kernels,
    read_model,
    session_options,
)

if TYPE_CHECKING:
    from qppengine.graph import Graph
    from qppengine.ir import Array
    from qppengine.records import SessionOption

# Optional packages and the extra of qppengine that brings them.
_EXTRAS = {
    "safetensors": "tools",
    "sklearn": "tools",
    "tqdm": "tools",
    "PIL": "demo",
    "matplotlib": "demo",
    "skimage": "demo",
    "torch": "torch",
    "onnx": "onnx",
}

# By suffix; other files are models of the package's own.
_IMPORTERS: dict[str, Callable[[Path], Graph]] = {".pt2": from_torch, ".onnx": from_onnx}

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TARGET = click.Path(dir_okay=False, path_type=Path)


class _Group(click.Group):
    """Prints errors of the package as ``Error: ...`` with exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            raise click.ClickException(
                f"this needs {package}: pip install 'qppengine[{_EXTRAS[package]}]'"
            ) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Quantized inference whose quantization parameters are predicted per sample.

    Shell completion: eval "$(_QPPENGINE_COMPLETE=bash_source qppengine)", likewise zsh, fish.
    """


def _json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")(
        command
    )


def _session_options(command: _Command) -> _Command:
    """The options of `Session`, except for the scheme."""
    for option in reversed(session_options()):
        if option["name"] != "scheme":
            command = click.option(
                "--" + option["name"].replace("_", "-"),
                type=_parameter_type(option),
                default=option["default"],
                show_default=option["default"] is not None,
                help=option["help"],
            )(command)
    return command


def _parameter_type(option: SessionOption) -> click.ParamType[Any]:
    if option["choices"] is not None:
        return click.Choice(option["choices"])
    low, high = option["min"] or 0, option["max"] or 0
    if option["type"] == "integer":
        return click.IntRange(int(low), int(high))
    return click.FloatRange(low, high, min_open=True)


def _fp16_options(command: _Command) -> _Command:
    """The options of `keep_fp16`."""
    for option in (
        click.option("--skip-last", is_flag=True, help="Keep the last layers in fp16."),
        click.option("--skip-first", is_flag=True, help="Keep the first layers in fp16."),
        click.option(
            "--fp16",
            "modules",
            multiple=True,
            help="A module to keep in fp16; can be repeated.",
        ),
    ):
        command = option(command)
    return command


_scheme_option = click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default="qpp",
    show_default=True,
    help="Source of the quantization parameters.",
)
_input_option = click.option(
    "--input",
    "inputs",
    type=_FILE,
    multiple=True,
    required=True,
    help="A .npy file, float32 [N, C, H, W]; one for every input of the network.",
)


@main.command()
@_json_option
def doctor(as_json: bool) -> None:
    """Show versions, CPU features, kernels and optional packages."""
    _print(
        {
            "qppengine": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cores": cores(),
            "cpu_features": cpu_features(),
            "packages": {
                name: "installed" if importlib.util.find_spec(name) else f"missing, extra {extra!r}"
                for name, extra in _EXTRAS.items()
            },
            "kernels": kernels(),
        },
        as_json,
    )


_margin_option = click.option(
    "--margin",
    type=float,
    default=0,
    show_default=True,
    help="Standard deviations of their error by which predicted bounds are moved outwards.",
)


@main.command(name="import")
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_TARGET, required=True, help="The .qpp file to write.")
@_json_option
def import_(model: Path, output: Path, as_json: bool) -> None:
    """Convert a .pt2 or .onnx file to a .qpp file without calibration.

    MODEL is a file of torch.export.save, or an ONNX model of floating-point numbers. The output
    runs in scheme fp16 only; use `calibrate` for a file that runs in all schemes.
    """
    graph = _IMPORTERS.get(model.suffix, from_torch)(model)
    save(output, graph)
    _print({"written": str(output), "bytes": output.stat().st_size, **_describe(graph)}, as_json)


@main.command(name="calibrate")
@click.argument("model", type=_FILE)
@click.argument("samples", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=_TARGET, required=True, help="The .qpp or .npz file to write.")
@click.option(
    "--alpha", type=float, default=0.9997, show_default=True, help="Bounds are the alpha-quantiles."
)
@click.option(
    "--density",
    "densities",
    type=float,
    multiple=True,
    default=DENSITIES,
    show_default=True,
    help="A density of dense + sparse execution; can be repeated.",
)
@click.option(
    "--position",
    "positions",
    multiple=True,
    default=["first"],
    show_default=True,
    help="A value to predict from, can be repeated; or 'first', or 'auto'.",
)
@_margin_option
@_fp16_options
@_json_option
def calibrate_(
    model: Path,
    samples: Path,
    output: Path,
    alpha: float,
    densities: tuple[float, ...],
    positions: tuple[str, ...],
    margin: float,
    as_json: bool,
    **fp16: Any,
) -> None:
    """Calibrate a network and write a file that runs in every scheme.

    MODEL is a .pt2, .onnx or .qpp file. SAMPLES is a .npy file, float32 [N, C, H, W], or a folder
    of them; every image is a sample. An output named *.npz receives only the statistics, for `fit`.
    """
    graph = keep_fp16(_load_graph(model), **fp16)
    calibration = calibrate(
        graph,
        _batches(samples),
        alpha,
        densities=densities,
        positions=positions[0] if positions in (("first",), ("auto",)) else positions,
        progress=sys.stderr.isatty(),
    )
    if output.suffix == ".npz":
        calibration.save(output)
    else:
        save(output, graph, fit(calibration, margin))
    _print(_describe_calibration(output, calibration), as_json)


@main.command(name="fit")
@click.argument("model", type=_FILE)
@click.argument("statistics", type=_FILE)
@click.option("-o", "--output", type=_TARGET, required=True, help="The .qpp file to write.")
@_margin_option
@_fp16_options
@_json_option
def fit_(
    model: Path, statistics: Path, output: Path, margin: float, as_json: bool, **fp16: Any
) -> None:
    """Fit the predictors of a model to statistics.

    MODEL is a .pt2, .onnx or .qpp file, STATISTICS an .npz file of `calibrate` for this model with
    the same layers in fp16.
    """
    calibration = Calibration.load(statistics)
    graph = keep_fp16(_load_graph(model), **fp16)
    save(output, graph, fit(calibration, margin))
    _print(_describe_calibration(output, calibration), as_json)


@main.command()
@click.argument("model", type=_FILE)
@_input_option
@click.option(
    "-o", "--output", type=_TARGET, help="The .npy file to write; .npz for several outputs."
)
@_scheme_option
@_session_options
@_json_option
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
    outputs = _outputs(session, [_load_array(path) for path in inputs])
    if output is not None:
        file = io.BytesIO()
        if len(outputs) == 1:
            np.save(file, next(iter(outputs.values())))
        else:
            np.savez(file, allow_pickle=False, **outputs)
        write_file(output, file.getvalue())
    _print(
        {
            "scheme": scheme,
            "outputs": [
                {
                    "output": name,
                    "shape": list(y.shape),
                    "min": _finite(y.min()),
                    "mean": _finite(y.mean()),
                    "max": _finite(y.max()),
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
@click.argument("model", type=_FILE)
@_scheme_option
@click.option(
    "--size",
    type=click.IntRange(1),
    nargs=2,
    help="Height and width of inputs with dynamic dimensions.",
)
@click.option("--dot", type=_TARGET, help="Also draw the graph, as text for Graphviz.")
@click.option("--onnx", type=_TARGET, help="Also write a .qpp file as a quantized ONNX model.")
@_session_options
@_json_option
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
    graph = _load_graph(model)
    if dot is not None:
        write_file(dot, to_dot(graph).encode())
    if onnx is not None:
        write_file(onnx, to_onnx(model, options["static_bounds"]).SerializeToString())
    report = _describe(graph)
    if model.suffix not in _IMPORTERS:
        scheme = scheme if scheme in _schemes(model) else "fp16"
        session = _open(model, scheme, options)
        if size is not None:
            session.prepare(*(_close(value.shape, size) for value in session.inputs))
        steps = session.explain()
        report |= {
            "scheme": scheme,
            "steps": _step_rows(steps),
            "totals": {key: sum(step[key] for step in steps) for key in ("macs", "bytes")},
            "memory": dict(session.memory()),
        }
    _print(report, as_json)


@main.command()
@click.argument("model", type=_FILE)
@_input_option
@_session_options
@_json_option
def compare(model: Path, inputs: Sequence[Path], as_json: bool, **options: Any) -> None:
    """Compare the schemes of a .qpp file with its float32 reference.

    psnr is in dB relative to a peak of 1, sqnr in dB relative to the energy of the reference. The
    table of layers shows the sqnr of every value in this run, so that errors add up along the
    network. Values that exist as int8 and fp16 are shown as int8. --density adds the share of
    outliers of each value.
    """
    arrays = [_load_array(path) for path in inputs]
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
                "sqnr": _finite(metrics.sqnr(y, expected[name])),
                "psnr": _finite(metrics.psnr(y, expected[name])),
                "max_error": _finite(np.abs(y - expected[name]).max()),
            }
            for name, y in outputs.items()
        ]
        for value, stored in _stored_values(session, arrays).items():
            layer = layers.setdefault(value, {"value": value})
            layer[f"{scheme} dtype"] = stored[0].stored.dtype.name
            numbers = np.concatenate([one.numbers for one in stored])
            layer[scheme] = _finite(metrics.sqnr(numbers, expected[value]), digits=1)
            if densities := [one.density for one in stored if one.density is not None]:
                layer[f"{scheme} density"] = _finite(np.mean(densities))
    columns = ("", " dtype") if options["density"] is None else ("", " dtype", " density")
    names = [scheme + column for scheme in schemes for column in columns]
    table = [
        {"value": value, **{name: layers[value].get(name) for name in names}}
        for value in expected
        if value in layers
    ]
    _print(
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
@click.argument("model", type=_FILE)
@click.option(
    "--size",
    type=click.IntRange(1),
    nargs=2,
    help="Height and width of inputs with dynamic dimensions.",
)
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice(SCHEMES),
    multiple=True,
    help="Can be repeated; by default all schemes of the file.",
)
@click.option("--iters", type=click.IntRange(1), default=20, show_default=True, help="Timed runs.")
@click.option("--profile", is_flag=True, help="Show the steps of the last scheme.")
@click.option("--trace", type=_TARGET, help="Write these steps to a file for chrome://tracing.")
@_session_options
@_json_option
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
        "input": [_text(x.shape) for x in inputs],
        "iters": iters,
        "threads": options["threads"],
        "times": "not measured (emulated)" if is_emulated() else "milliseconds",
        "schemes": rows,
    }
    if profile or trace is not None:
        steps = session.profile(*inputs, runs=iters)
        if profile:
            report["steps"] = _step_rows(steps.rows)
        if trace is not None:
            write_file(trace, json.dumps(steps.trace()).encode())
    _print(report, as_json)


@main.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="Folder for the model and the picture.",
)
@click.option(
    "--upscale",
    type=click.IntRange(2, 3),
    default=3,
    show_default=True,
    help="Factor of enlargement.",
)
@_json_option
def demo(output: Path, upscale: int, as_json: bool) -> None:
    """Super-resolution of photographs in every scheme: a table and a picture.

    Exits with an error if the table contradicts the expected order of the schemes.
    """
    from qppengine.demo import check
    from qppengine.demo import main as run_demo

    report = run_demo(output, upscale, progress=sys.stderr.isatty())
    _print(report, as_json)
    check(report)


def _load_graph(path: Path) -> Graph:
    return _IMPORTERS.get(path.suffix, load_graph)(path)


def _schemes(model: Path) -> tuple[str, ...]:
    """The schemes that a model file can run in."""
    calibrated = "quantization" in json.loads(read_model(model)[0])
    return SCHEMES if calibrated else ("fp16",)


def _open(model: Path, scheme: str, options: dict[str, Any]) -> Session:
    """A session for one of several schemes, of which "fp16" has no dense + sparse values."""
    return Session(model, scheme, **options | ({"density": None} if scheme == "fp16" else {}))


def _load_array(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise ModelError(f"{str(path)!r} is not a .npy file: {error}") from error


def _batches(path: Path) -> Iterator[Array]:
    """The batches of a .npy file or a folder of them."""
    return map(_load_array, sorted(path.glob("*.npy")) if path.is_dir() else [path])


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


def _describe(graph: Graph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "inputs": {value.name: _text(value.shape) for value in graph.inputs},
        "outputs": list(graph.outputs),
        "parameters": sum(tensor.size for node in graph.nodes for tensor in node.tensors.values()),
        "nodes": [
            {
                "node": node.name,
                "op": node.op,
                "input": node.inputs[0],
                "shape": _text(graph.shapes[node.output]),
                "activation": node.attributes.get("activation", ""),
            }
            for node in graph.nodes
        ],
    }


def _step_rows(steps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `Session.explain` or of a profile."""
    return [{**step, "shape": _text(step["shape"] or ())} for step in steps]


def _describe_calibration(output: Path, calibration: Calibration) -> dict[str, Any]:
    mean, extreme = calibration.mean_bounds, calibration.range_bounds
    return {
        "written": str(output),
        "bytes": output.stat().st_size,
        "samples": len(calibration.bounds),
        "alpha": calibration.plan.alpha,
        "densities": list(calibration.plan.densities),
        "values": [
            {
                "value": value,
                "mean_lo": _finite(mean[row, 0]),
                "mean_hi": _finite(mean[row, 1]),
                "lowest": _finite(extreme[row, 0]),
                "highest": _finite(extreme[row, 1]),
            }
            for row, value in enumerate(calibration.plan.values)
        ],
    }


def _text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _finite(number: Any, digits: int = 4) -> float | None:
    """A number for JSON: rounded, and None for infinity and NaN, which JSON lacks."""
    return round(float(number), digits) if math.isfinite(number) else None


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{key}:")
            _print_table(value)
        elif isinstance(value, dict):
            click.echo(f"{key}:")
            for name, item in value.items():
                click.echo(f"  {name}: {item}")
        elif isinstance(value, list):
            click.echo(f"{key}: {', '.join(map(str, value))}")
        else:
            click.echo(f"{key}: {value}")


def _print_table(rows: list[dict[str, Any]]) -> None:
    header = list(rows[0])
    cells = [header] + [
        ["" if row[key] is None else str(row[key]) for key in header] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  " + "  ".join(padded).rstrip())
