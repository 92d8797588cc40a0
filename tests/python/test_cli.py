# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
import qppengine.models
from click.testing import CliRunner
from qppengine.cli import main
from qppengine.model_file import load_graph

if TYPE_CHECKING:
    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

ESPCN = Path(qppengine.models.__file__).parent / "espcn_x3.pt2"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def call_json(*arguments: object) -> Any:
    return json.loads(call(*arguments, "--json"))


def fail(*arguments: object) -> str:
    """The one line of a command that fails without a traceback."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    # Of both streams: click 8.1 captures stderr alone only when asked to.
    assert result.output.startswith("Error: ")
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples and an input for ESPCN."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(6)
    batch = rng.random((12, 1, 20, 24), np.float32) * np.linspace(0.5, 2, 12)[:, None, None, None]
    np.save(folder / "samples.npy", batch.astype(np.float32))
    (folder / "images").mkdir()
    for i, image in enumerate(batch.astype(np.float32)):
        np.save(folder / "images" / f"{i:02}.npy", image[None])
    np.save(folder / "x.npy", batch[:1].astype(np.float32))
    call("calibrate", ESPCN, folder / "samples.npy", "-o", folder / "espcn.qpp")
    return folder


def test_help_lists_the_commands() -> None:
    text = call("--help")
    for command in (
        "doctor",
        "import",
        "calibrate",
        "fit",
        "run",
        "inspect",
        "compare",
        "bench",
        "demo",
    ):
        assert f"\n  {command} " in text
    assert "_QPPENGINE_COMPLETE" in text
    assert qe.__version__ in call("--version")


def test_calibrate_rounds_weights_on_the_samples(folder: Path, tmp_path: Path) -> None:
    samples, output = folder / "samples.npy", tmp_path / "espcn.qpp"
    call("calibrate", ESPCN, samples, "-o", output, "--weights", "feedback", "--density", "0.01")
    graph = qe.load_graph(output)
    assert all("int8_weight" in n.tensors for n in graph.nodes if n.op == "conv2d")
    plain = qe.load_graph(folder / "espcn.qpp")
    assert not any("int8_weight" in node.tensors for node in plain.nodes)


def test_doctor() -> None:
    report = call_json("doctor")
    assert report["qppengine"] == qe.__version__
    assert {"fp16", "dotprod"} <= report["cpu_features"].keys()
    assert report["packages"]["safetensors"] == "installed"
    assert all(kernel["available"] for kernel in report["kernels"] if "_ref" in kernel["name"])
    assert "conv_qai8_qai8_qsi8cx" in call("doctor")


def test_import_writes_an_uncalibrated_model(tmp_path: Path) -> None:
    report = call_json("import", ESPCN, "-o", tmp_path / "a.qpp")
    assert report["bytes"] == (tmp_path / "a.qpp").stat().st_size
    assert [node["node"] for node in report["nodes"]] == ["conv1", "conv2", "conv3", "shuffle"]
    assert load_graph(tmp_path / "a.qpp").name == "ESPCN"
    report = call_json("inspect", tmp_path / "a.qpp")
    assert report["scheme"] == "fp16"


def test_calibrate_takes_a_folder_as_well(folder: Path, tmp_path: Path) -> None:
    options = ("--alpha", "0.999")
    one = call_json("calibrate", ESPCN, folder / "samples.npy", "-o", tmp_path / "a.qpp", *options)
    two = call_json("calibrate", ESPCN, folder / "images", "-o", tmp_path / "b.qpp", *options)
    assert one["samples"] == 12
    assert one["alpha"] == 0.999
    assert one["values"] == two["values"]
    assert [value["value"] for value in one["values"]] == ["x", "conv1", "conv2"]


def test_fit_gives_what_calibrate_gives(folder: Path, tmp_path: Path) -> None:
    statistics = tmp_path / "statistics.npz"
    call("calibrate", ESPCN, folder / "samples.npy", "-o", statistics)
    call("calibrate", ESPCN, folder / "samples.npy", "-o", tmp_path / "c.qpp", "--margin", 2)
    call("import", ESPCN, "-o", tmp_path / "a.qpp")
    call("fit", tmp_path / "a.qpp", statistics, "-o", tmp_path / "b.qpp")
    call("fit", tmp_path / "a.qpp", statistics, "-o", tmp_path / "d.qpp", "--margin", 2)
    outputs = []
    for model in (folder / "espcn.qpp", *(tmp_path / f"{name}.qpp" for name in "bcd")):
        call("run", model, "--input", folder / "x.npy", "-o", tmp_path / "y.npy")
        outputs.append(np.load(tmp_path / "y.npy"))
    plain, fitted, wide, fitted_wide = outputs
    np.testing.assert_array_equal(plain, fitted)
    np.testing.assert_array_equal(wide, fitted_wide)
    assert (wide != plain).any()


def test_layers_in_fp16_and_positions_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    statistics = tmp_path / "statistics.npz"
    calibrate = ("calibrate", ESPCN, folder / "samples.npy", "-o")
    fp16 = ("--skip-first", "--fp16", "conv3")
    report = call_json(*calibrate, tmp_path / "a.qpp", *fp16)
    assert [value["value"] for value in report["values"]] == ["conv1"]
    assert [n.name for n in load_graph(tmp_path / "a.qpp").nodes if n.fp16] == ["conv1", "conv3"]
    call(*calibrate, statistics, *fp16)
    assert call_json("fit", ESPCN, statistics, "-o", tmp_path / "b.qpp", *fp16)["samples"] == 12
    assert "another network" in fail("fit", ESPCN, statistics, "-o", tmp_path / "b.qpp")
    assert "has no 'conv9'" in fail(*calibrate, statistics, "--fp16", "conv9")

    for chosen, expected in (
        (["auto"], ["x"]),
        (["x", "conv2"], ["x", "conv2"]),
    ):
        options = [option for value in chosen for option in ("--position", value)]
        call(*calibrate, statistics, *options)
        positions = qe.Calibration.load(statistics).plan.positions
        assert [position.value for position in positions] == expected


@pytest.mark.parametrize("scheme", qe.SCHEMES)
def test_run_writes_what_the_session_gives(scheme: str, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.npy"
    options = ("--scheme", scheme, "--activation-bits", 6)
    report = call_json(
        "run", folder / "espcn.qpp", "--input", folder / "x.npy", "-o", target, *options
    )
    expected = qe.Session(folder / "espcn.qpp", scheme, activation_bits=6).run(
        np.load(folder / "x.npy")
    )
    np.testing.assert_array_equal(np.load(target), expected)
    assert report["outputs"][0]["shape"] == [1, 1, 60, 72]
    assert report["outputs"][0]["max"] == pytest.approx(expected.max(), abs=1e-4)


def test_features_can_be_chosen(tmp_path: Path, folder: Path) -> None:
    statistics = tmp_path / "a.npz"
    calibrate = ("calibrate", ESPCN, folder / "samples.npy", "-o", statistics)
    value = load_graph(folder / "espcn.qpp").quantized_values[0]
    features = ("max", "quantile=0.999", "min::log", f"mean:{value}", f"std:{value}:log")
    call(*calibrate, *(item for feature in features for item in ("--feature", feature)))
    assert qe.Calibration.load(statistics).plan.positions[0].features == (
        qe.Feature("max"),
        qe.Feature("quantile", 0.999),
        qe.Feature("min", transform="log"),
        qe.Feature("mean", value=value),
        qe.Feature("std", value=value, transform="log"),
    )


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        ("median", "expected one of the kinds quantile, mean"),
        ("quantile=a", "could not convert string to float: 'a'"),
        ("quantile", "alpha of a quantile: expected above 0.5"),
        ("max=0.9", "expected no alpha for the kind 'max'"),
    ],
)
def test_wrong_features_are_explained(feature: str, problem: str, folder: Path) -> None:
    arguments = ["calibrate", ESPCN, folder / "samples.npy", "-o", "a.qpp", "--feature", feature]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2
    assert "expected KIND[=ALPHA][:VALUE[:TRANSFORM]], got" in result.output
    assert problem in result.output


def test_run_writes_several_outputs(tmp_path: Path) -> None:
    net = qe.GraphBuilder("two")
    x = net.input("x", (1, 1, None, None))
    net.output(net.tanh(x), net.relu(x))
    qe.save(tmp_path / "two.qpp", net.build())
    image: Array = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.save(tmp_path / "x.npy", image)
    call(
        *("run", tmp_path / "two.qpp", "--scheme", "fp16"),
        *("--input", tmp_path / "x.npy", "-o", tmp_path / "y.npz"),
    )
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_allclose(outputs["relu"], np.maximum(image, 0), atol=1e-3)


def test_inspect_shows_kernels_and_shapes(folder: Path) -> None:
    report = call_json("inspect", folder / "espcn.qpp", "--size", 24, 32)
    assert report["scheme"] == "qpp"
    assert report["steps"][-1]["shape"] == "1x72x96x1"
    assert report["memory"]["arena"] > 0
    assert report["totals"]["macs"] == 24 * 32 * (25 * 64 + 9 * 64 * 32 + 9 * 32 * 9)
    assert report["totals"]["bytes"] == sum(step["bytes"] for step in report["steps"])
    assert "measure_features" in call("inspect", folder / "espcn.qpp")
    assert "steps" not in call_json("inspect", ESPCN)


def test_inspect_draws_and_exports(folder: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    drawing, model = tmp_path / "a.dot", tmp_path / "a.onnx"
    call("inspect", folder / "espcn.qpp", "--dot", drawing, "--onnx", model)
    assert drawing.read_text().startswith("digraph")
    assert onnx.load(model).producer_name == "qppengine"
    assert "cannot write" in fail("inspect", ESPCN, "--dot", tmp_path / "none" / "a.dot")


def test_onnx_files_are_taken(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    values = [onnx.helper.make_tensor_value_info(n, 1, [1, 1, 4, 4]) for n in "xy"]
    relu = onnx.helper.make_node("Relu", ["x"], ["y"], "relu")
    graph = onnx.helper.make_graph([relu], "net", values[:1], values[1:])
    imports = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports), tmp_path / "a.onnx")
    assert call_json("import", tmp_path / "a.onnx", "-o", tmp_path / "a.qpp")["name"] == "net"
    assert [node["node"] for node in call_json("inspect", tmp_path / "a.onnx")["nodes"]] == ["relu"]


def test_compare_ranks_the_schemes(folder: Path) -> None:
    arguments = ("compare", folder / "espcn.qpp", "--input", folder / "x.npy")
    rows = {row["scheme"]: row for row in call_json(*arguments)["schemes"]}
    assert list(rows) == list(qe.SCHEMES)
    assert rows["fp16"]["sqnr"] > 55
    assert rows["dynamic"]["sqnr"] > 30
    assert "max_error" in call(*arguments, "--activation-bits", 4)


def test_compare_tells_every_layer(folder: Path) -> None:
    report = call_json("compare", folder / "espcn.qpp", "--input", folder / "x.npy")
    layers = {row["value"]: row for row in report["layers_sqnr"]}
    assert list(layers) == ["x", "conv1", "conv2", "conv3", "shuffle"]
    for scheme in ("static", "dynamic", "qpp"):
        held = [row[f"{scheme} dtype"] for row in layers.values()]
        assert held == ["int8", "int8", "int8", "float16", "float16"]
        total = next(row["sqnr"] for row in report["schemes"] if row["scheme"] == scheme)
        assert layers["shuffle"][scheme] == pytest.approx(total, abs=0.05)
        assert layers["x"][scheme] > 25
    assert layers["conv1"]["fp16"] > layers["conv1"]["dynamic"]
    assert layers["x"]["fp16"] is None  # no step writes it


def test_density_is_an_option_of_every_command_that_runs(folder: Path) -> None:
    model = folder / "espcn.qpp"
    density = ("--density", 0.03)
    report = call_json("compare", model, "--input", folder / "x.npy", *density)
    assert [row["scheme"] for row in report["schemes"]] == list(qe.SCHEMES)
    dense = call_json("compare", model, "--input", folder / "x.npy")
    assert report["schemes"][0] == dense["schemes"][0]  # fp16
    assert report["schemes"][1] != dense["schemes"][1]
    layers = {row["value"]: row for row in report["layers_sqnr"]}
    assert 0 < layers["conv1"]["dynamic density"] < 0.065  # 0.03 at either end
    assert layers["conv3"]["dynamic density"] is None
    assert "dynamic density" not in dense["layers_sqnr"][0]
    call("bench", model, "--size", 24, 32, "--iters", 1, *density)
    call("inspect", model, *density)
    assert "(0.01, 0.03, 0.1), got 0.02" in fail("inspect", model, "--density", 0.02)
    assert "a scheme that quantizes" in fail(
        "run", model, "--input", folder / "x.npy", "--scheme", "fp16", *density
    )


def test_bench_compares_all_schemes_and_shows_the_steps(folder: Path, tmp_path: Path) -> None:
    arguments = ("bench", folder / "espcn.qpp", "--size", 24, 32, "--iters", 3)
    report = call_json(*arguments, "--profile", "--trace", tmp_path / "trace.json")
    assert report["input"] == ["1x1x24x32"]
    assert [row["scheme"] for row in report["schemes"]] == list(qe.SCHEMES)
    for row in report["schemes"]:
        assert 0 < row["min"] <= row["median"]
        assert 0 < row["peak"] <= row["arena"]
    assert report["steps"][-1]["shape"] == "1x72x96x1"
    assert sum(step["macs"] for step in report["steps"]) == 24 * 32 * (64 * 25 + 64 * 288 + 9 * 288)
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert len(trace["traceEvents"]) == 3 * len(report["steps"])
    assert "median" in call(*arguments, "--scheme", "static")
    assert "cannot write" in fail(*arguments, "--trace", tmp_path / "none" / "trace.json")


def test_bench_tells_no_times_of_an_emulator(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cli.sessions", "session"):
        monkeypatch.setattr(f"qppengine.{module}.is_emulated", lambda: True)
    arguments = ("bench", folder / "espcn.qpp", "--iters", 1, "--scheme", "qpp")
    report = call_json(*arguments, "--profile")
    assert report["times"] == "not measured (emulated)"
    assert report["schemes"][0]["median"] is None
    assert all(step["ms"] is None for step in report["steps"])
    assert "timing is not available" in fail(*arguments, "--trace", tmp_path / "trace.json")


def test_errors_are_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    model, x = folder / "espcn.qpp", folder / "x.npy"
    junk = tmp_path / "junk.npy"
    junk.write_text("junk")
    target = tmp_path / "none" / "a.qpp"
    assert "truncated or no model file" in fail("run", x, "--input", x)
    assert "not a .npy file" in fail("run", model, "--input", junk)
    assert "expected float32, got float64" in fail_with(np.zeros((1, 1, 4, 4)), model, tmp_path)
    assert "expected shape [1, 1, any, any]" in fail_with(
        np.zeros((1, 2, 4, 4), np.float32), model, tmp_path
    )
    assert "cannot write" in fail("import", ESPCN, "-o", target)
    assert "cannot write" in fail("run", model, "--input", x, "-o", tmp_path / "none" / "y.npy")
    assert "not a readable .pt2" in fail("import", junk, "-o", tmp_path / "a.qpp")
    assert "is not a calibration" in fail("fit", model, junk, "-o", tmp_path / "a.qpp")
    (tmp_path / "empty").mkdir()
    assert "calibration set is empty" in fail(
        "calibrate", ESPCN, tmp_path / "empty", "-o", tmp_path / "a.qpp"
    )


def fail_with(x: Any, model: Path, folder: Path) -> str:
    np.save(folder / "bad.npy", x)
    return fail("run", model, "--input", folder / "bad.npy")


def test_missing_packages_are_told_with_their_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    message = fail("import", ESPCN, "-o", tmp_path / "a.qpp")
    assert "pip install 'qppengine[tools]'" in message


def test_the_package_runs_as_a_module() -> None:
    text = subprocess.check_output([sys.executable, "-m", "qppengine", "--help"], text=True)
    assert text.startswith("Usage: python -m qppengine [OPTIONS] COMMAND")
    assert "calibrate" in text
