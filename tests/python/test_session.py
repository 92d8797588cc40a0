# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import Session, _core, reference
from qppengine.metrics import sqnr
from qppengine.model_file import load_graph, serialize
from qppengine.passes import optimize
from qppengine.profile import Profile
from qppengine.regression import fit
from qppengine.save import save
from qppengine.session import cores

if TYPE_CHECKING:
    from pathlib import Path

    from qppengine.ir import Array

QUANTIZED = ("static", "dynamic", "qpp")


def image(seed: int = 9, height: int = 20, width: int = 24, batch: int = 1) -> Array:
    """An image exact in fp16, so that engine and reference start from the same numbers."""
    rng = np.random.default_rng(seed)
    return rng.random((batch, 3, height, width)).astype(np.float16).astype(np.float32)


def test_fp16_is_near_the_reference(model: Path) -> None:
    x = image()
    (expected,) = reference.run(load_graph(model), x)
    assert np.abs(Session(model, "fp16").run(x) - expected).max() < 5e-3


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("scheme", QUANTIZED)
def test_quantized_schemes_are_those_of_the_reference(model: Path, scheme: str, bits: int) -> None:
    """Given the bounds the engine has used, the reference quantizes to the same levels.

    Sums and activations are rounded in another order, and the engine moves a level by up to half a
    step of its accumulators (kernels/magic_bias.h), so that a number about halfway between two
    levels may go to either; such a step is seen in all outputs of a 3x3 convolution. One or two
    such steps in an image are common with few bits, so that several images are counted.
    """
    graph = load_graph(model)
    static_bounds = "mean" if scheme == "static" else None
    session = Session(
        model, scheme, activation_bits=bits, algorithm="direct", static_bounds=static_bounds
    )
    different = []
    for seed in range(8):
        x = image(seed)
        y = session.run(x)
        bounds = dict(zip(graph.quantized_values, session.qparams()[0].tolist(), strict=True))
        values = reference.run_quantized(
            graph, bounds, x, activation_bits=bits, through_fp16=scheme == "dynamic"
        )
        expected = values[graph.outputs[0]]
        different.append(np.mean(np.abs(y - expected) > 2e-3))
        # With 2 bits, one step is a third of the range.
        assert sqnr(y, expected) > (45 if bits > 2 else 35)
    assert np.mean(different) < 0.04


def test_static_bounds_are_those_of_the_calibration(
    model: Path, calibration: qe.Calibration
) -> None:
    x = image()
    for rule, expected in (
        (None, fit(calibration).sets[0].fitted),
        ("fitted", fit(calibration).sets[0].fitted),
        ("mean", calibration.mean_bounds),
        ("range", calibration.range_bounds),
    ):
        session = Session(model, "static", static_bounds=rule)
        session.run(x)
        np.testing.assert_array_equal(session.qparams(), expected[None])
    with pytest.raises(qe.UnsupportedError, match="static_bounds: expected"):
        Session(model, "static", static_bounds="median")


def test_dynamic_bounds_are_those_calibration_measures(
    graph: qe.Graph, model: Path, samples: list[Array], calibration: qe.Calibration
) -> None:
    """The input's; inner values differ by the quantization of their inputs."""
    session = Session(model, "dynamic")
    for i, x in enumerate(samples[:3]):
        session.run(x)
        np.testing.assert_array_equal(session.qparams()[0, 0], calibration.bounds[i, 0])
        np.testing.assert_allclose(session.qparams()[0], calibration.bounds[i], atol=0.05)


def test_predictions_are_those_of_the_fit(model: Path, calibration: qe.Calibration) -> None:
    (fitted, *_) = fit(calibration).sets
    (predictor,) = fitted.predictors
    session = Session(model, "qpp")
    clamps = np.zeros(3, int)
    for seed in range(20):
        x = image(seed) * np.float32(2.0 ** (seed % 7 - 3))
        session.run(x)
        features = session.features()[:, 0]
        (predicted,) = predictor.predict(features, fitted.calibrated_range)
        np.testing.assert_allclose(session.qparams()[0], predicted, rtol=1e-5, atol=1e-5)
        (free,) = predictor.predict(features, np.array([[-np.inf, 0, 0, np.inf]] * 3))
        clamps += np.abs(free - predicted).max(axis=1) > 1e-5
    stats = session.stats()
    assert stats["runs"] == 20
    assert stats["predictions"] == 60
    assert clamps.any()
    assert list(stats["clamped_predictions"].values()) == clamps.tolist()
    assert list(stats["clamped_predictions"]) == ["x", "head", "body"]


def test_other_positions_predict_their_rows(
    graph: qe.Graph, samples: list[Array], tmp_path: Path
) -> None:
    calibration = qe.calibrate(graph, samples, positions=["x", "head"], progress=False)
    save(tmp_path / "a.qpp", graph, calibration)
    session = Session(tmp_path / "a.qpp", "qpp")
    y = session.run(samples[0])
    assert session.features().shape == (1, 2, 5)
    (bounds,) = session.qparams()
    (fitted, *_) = fit(calibration).sets
    for predictor, features in zip(fitted.predictors, session.features()[0], strict=True):
        predicted = predictor.predict(features[None], fitted.calibrated_range)[0]
        rows = list(predictor.position.rows)
        np.testing.assert_allclose(bounds[rows], predicted, rtol=1e-5, atol=1e-6)
    assert sqnr(y, reference.run(graph, samples[0])[0]) > 25


@pytest.mark.parametrize("scheme", qe.SCHEMES)
def test_shapes_may_change_from_run_to_run(model: Path, scheme: str) -> None:
    session = Session(model, scheme)
    graph = load_graph(model)
    for height, width in [(20, 24), (1, 1), (33, 7), (20, 24)]:
        x = image(3, height, width)
        y = session.run(x)
        assert y.shape == graph.infer_shapes({"x": x.shape})["shuffle"]
        np.testing.assert_array_equal(y, Session(model, scheme).run(x))


@pytest.mark.parametrize("scheme", qe.SCHEMES)
def test_threads_do_not_change_the_result(model: Path, scheme: str) -> None:
    x = image(4, 37, 41)
    np.testing.assert_array_equal(
        Session(model, scheme, threads=3).run(x), Session(model, scheme).run(x)
    )


@pytest.fixture
def branches(samples: list[Array]) -> Session:
    """Two inputs, two outputs."""
    net = qe.GraphBuilder("branches")
    a, b = net.input("a", (1, 1, None, None)), net.input("b", (1, 2, 4, 5))
    left = net.conv2d(a, np.full((2, 1, 3, 3), 0.25), name="left")
    right = net.conv2d(b, np.full((1, 2, 1, 1), 0.5), name="right")
    net.output(right, left)
    graph = net.build()
    pairs = [(x[:, :1], x[:, 1:, :4, :5]) for x in samples]
    return Session(serialize(graph, qe.fit(qe.calibrate(graph, pairs, progress=False))))


def test_several_inputs_and_outputs(branches: Session) -> None:
    assert [(v.name, v.shape) for v in branches.inputs] == [
        ("a", (1, 1, None, None)),
        ("b", (1, 2, 4, 5)),
    ]
    assert branches.outputs == ("right", "left")
    a, b = image()[:, :1], image()[:, 1:, :4, :5]
    right, left = branches.run(a, b)
    np.testing.assert_allclose(right[0, 0], b[0].mean(axis=0), atol=0.01)
    assert left.shape == (1, 2, 18, 22)
    for y, z in zip(branches.run({"b": b, "a": a}), (right, left), strict=True):
        np.testing.assert_array_equal(y, z)
    out = np.empty_like(right), np.empty_like(left)
    assert branches.run(a, b, out=out) is out
    np.testing.assert_array_equal(out[1], left)


def test_several_inputs_must_all_come(branches: Session) -> None:
    a, b = image()[:, :1], image()[:, 1:, :4, :5]
    with pytest.raises(qe.ShapeError, match=r"expected 2 inputs \['a', 'b'\], got 1"):
        branches.run(a)
    with pytest.raises(qe.ShapeError, match=r"expected inputs \['a', 'b'\], got \['a', 'c'\]"):
        branches.run({"a": a, "c": b})
    with pytest.raises(qe.ShapeError, match=r"'b': expected shape \[1, 2, 4, 5\], got \[1, 2, 5"):
        branches.run(a, image()[:, 1:, :5, :5])
    with pytest.raises(qe.ShapeError, match="out: expected 2 arrays"):
        branches.run(a, b, out=np.empty((1, 1, 4, 5), np.float32))


def test_outputs_are_chosen_by_name(branches: Session) -> None:
    a, b = image()[:, :1], image()[:, 1:, :4, :5]
    right, left = branches.run(a, b)
    np.testing.assert_array_equal(branches.run(a, b, outputs="left"), left)
    (only,) = branches.run(a, b, outputs=["right"])
    np.testing.assert_array_equal(only, right)
    swapped = branches.run(a, b, outputs=("left", "right"))
    np.testing.assert_array_equal(swapped[0], left)
    np.testing.assert_array_equal(swapped[1], right)

    out = {"left": np.empty_like(left)}
    assert branches.run({"a": a, "b": b}, out=out) is out
    np.testing.assert_array_equal(out["left"], left)
    array = np.empty_like(right)
    assert branches.run(a, b, outputs="right", out=array) is array
    np.testing.assert_array_equal(array, right)

    for names in ("top", ["left", "top"], {"top": array}):
        options: Any = {"out": names} if isinstance(names, dict) else {"outputs": names}
        with pytest.raises(qe.UnsupportedError, match=r"expected some of \['right', 'left'\], got"):
            branches.run(a, b, **options)
    with pytest.raises(qe.UnsupportedError, match="got none"):
        branches.run(a, b, outputs=[])
    with pytest.raises(qe.UnsupportedError, match="with a mapping"):
        branches.run(a, b, outputs="left", out=out)
    with pytest.raises(qe.ShapeError, match=r"out: expected shape .* for output 'left', got"):
        branches.run(a, b, out={"left": array})


def test_arrays_of_other_libraries_are_taken_by_dlpack(model: Path) -> None:
    torch = pytest.importorskip("torch")
    session = Session(model, "static")
    x = image()
    expected = session.run(x)
    np.testing.assert_array_equal(session.run(torch.from_numpy(x)), expected)
    np.testing.assert_array_equal(torch.from_dlpack(session.run(x)).numpy(), expected)
    target = torch.empty(expected.shape)
    assert session.run(torch.from_numpy(x), out=target) is target
    np.testing.assert_array_equal(target.numpy(), expected)
    channels_last = torch.from_numpy(x).to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(session.run(channels_last), expected)
    with pytest.raises(qe.DTypeError, match="expected float32, got float64"):
        session.run(torch.from_numpy(x).double())
    for foreign in (torch.from_numpy(x).requires_grad_(), torch.empty(x.shape, device="meta")):
        with pytest.raises(qe.UnsupportedError, match=r"cannot read .* by DLPack"):
            session.run(foreign)


@pytest.mark.parametrize("offset", [0, 1, 700, 2000])
def test_outputs_may_take_the_memory_of_inputs(model: Path, offset: int) -> None:
    session = Session(model, "qpp")
    x = np.concatenate([image(seed) for seed in range(3)])
    expected = session.run(x)
    memory = np.empty(x.size + expected.size + 2000, np.float32)
    source = memory[2000 : 2000 + x.size].reshape(x.shape)
    source[:] = x
    target = memory[offset : offset + expected.size].reshape(expected.shape)
    np.testing.assert_array_equal(session.run(source, out=target), expected)


def test_outputs_must_not_take_the_memory_of_each_other(branches: Session) -> None:
    a, b = image()[:, :1], image()[:, 1:, :4, :5]
    right, left = branches.run(a, b)
    memory = np.empty(right.size + left.size, np.float32)
    first = memory[: right.size].reshape(right.shape)
    for begin, apart in ((right.size, True), (right.size - 1, False), (0, False)):
        second = memory[begin : begin + left.size].reshape(left.shape)
        if apart:
            branches.run(a, b, out=(first, second))
            np.testing.assert_array_equal(first, right)
            np.testing.assert_array_equal(second, left)
            continue
        with pytest.raises(qe.ShapeError, match="out: expected arrays that do not overlap"):
            branches.run(a, b, out=(first, second))


def test_a_session_serves_several_threads(model: Path) -> None:
    session = Session(model, "qpp", threads=2)
    images = [image(seed, 12 + seed, 16) for seed in range(8)]
    expected = [Session(model, "qpp").run(x) for x in images]
    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(session.run, images * 5))
    for i, y in enumerate(results):
        np.testing.assert_array_equal(y, expected[i % 8])
    assert session.stats()["runs"] == 40


def test_cores_do_not_change_the_result(model: Path) -> None:
    x = image()
    expected = Session(model, "static").run(x)
    big = cores()["big"]
    assert 1 <= big <= cores()["all"]
    session = Session(model, "static", threads=big, cores="big")
    np.testing.assert_array_equal(session.run(x), expected)
    with pytest.raises(qe.UnsupportedError, match=f"threads: expected 1 to {big} on the big cores"):
        Session(model, "static", threads=big + 1, cores="big")
    with pytest.raises(qe.UnsupportedError, match='cores: expected "all" or "big", got "little"'):
        Session(model, "static", cores="little")


def test_profile_times_every_step(model: Path) -> None:
    session = Session(model, "qpp")
    profile = session.profile(image(), runs=5)
    assert [{**row, "ms": None} for row in profile.rows] == [
        {**step, "ms": None, "share": row["share"]}
        for step, row in zip(session.explain(), profile.rows, strict=True)
    ]
    assert all(row["ms"] is not None and row["ms"] >= 0 for row in profile.rows)
    assert sum(row["share"] or 0 for row in profile.rows) == pytest.approx(100, abs=0.5)
    events = profile.trace()["traceEvents"]
    assert len(events) == 5 * len(profile.rows)
    ends = [event["ts"] + event["dur"] for event in events]
    assert all(event["ts"] >= end - 1e-6 for event, end in zip(events[1:], ends[:-1], strict=True))
    assert {"name", "cat", "ph", "pid", "tid"} <= events[0].keys()
    without = Profile(session.explain(), None)
    assert all(row["ms"] is None for row in without.rows)
    assert without.trace() == {"traceEvents": []}


def test_explain_and_memory(model: Path) -> None:
    session = Session(model, "qpp")
    assert session.explain()[0]["shape"] is None
    session.run(image())
    steps = session.explain()
    assert [step["op"] for step in steps] == [
        "measure_features",
        "predict_qparams",
        "quantize",
        "conv2d",
        "conv2d",
        "conv2d",
        "pixel_shuffle",
    ]
    convolutions = [step for step in steps if step["op"] == "conv2d"]
    assert [step["dtype"] for step in convolutions] == ["qai8", "qai8", "f16"]
    assert [step["shape"] for step in convolutions] == [
        (1, 20, 24, 12),
        (1, 10, 24, 16),
        (1, 10, 24, 8),
    ]
    assert all(step["kernel"].startswith("conv") for step in convolutions)
    assert convolutions[1]["macs"] == 10 * 24 * 16 * 12 * 9
    assert convolutions[1]["bytes"] >= 20 * 24 * 16 + 10 * 24 * 16 + 16 * 12 * 9
    int8, fp16 = Session(model, "static"), Session(model, "fp16")
    int8.run(image())
    fp16.run(image())
    assert 0 < int8.memory()["weights"] < fp16.memory()["weights"]
    assert 0 < int8.memory()["peak"] <= int8.memory()["arena"] < fp16.memory()["arena"]


def test_elementwise_steps_run_in_the_memory_of_what_they_read_last() -> None:
    net = qe.GraphBuilder("chain")
    x = net.input("x", (1, 8, 16, 16))
    y = net.tanh(x)  # not over x, which the sum reads
    y = net.add(net.clamp(y, -0.5, 0.5), x)
    net.output(net.relu(y))
    graph = net.build()
    session = Session(serialize(graph), "fp16")
    image = np.linspace(-2, 2, 8 * 16 * 16, dtype=np.float32).reshape(1, 8, 16, 16)
    for _ in range(2):
        (expected,) = reference.run(graph, image)
        np.testing.assert_allclose(session.run(image), expected, atol=3e-3)
    assert session.memory()["arena"] == session.memory()["peak"] == 2 * 2 * image.size


def test_preparing_tells_memory_and_shapes_without_a_run(model: Path) -> None:
    session, other = Session(model, "static"), Session(model, "static")
    assert session.prepare((1, 3, 20, 24)) == {"shuffle": (1, 2, 20, 48)}
    assert session.stats()["runs"] == 0
    other.run(image())
    assert session.explain() == other.explain()
    assert session.memory() == other.memory()
    with pytest.raises(qe.ShapeError, match=r"'x': expected shape \[any, 3, any, any\], got"):
        session.prepare((1, 4, 20, 24))
    with pytest.raises(qe.ShapeError, match="expected 1 inputs, got 2"):
        session.prepare((1, 3, 20, 24), (1, 3, 20, 24))


def test_session_options_are_those_of_the_engine() -> None:
    options = {option["name"]: option for option in _core.session_options()}
    parameters = inspect.signature(Session).parameters
    for name, option in options.items():
        assert parameters[name].default == option["default"]
        assert (option["choices"] is None) == (option["type"] != "choice")
    assert options["activation_bits"]["min"] == 2
    assert options["density"]["max"] == 0.1
    assert options["algorithm"]["choices"] == ["auto", "direct", "winograd"]
    with pytest.raises(qe.UnsupportedError, match=r'options scheme, .*, got "colour"'):
        _core.Session(b"", colour="red")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scheme": "int8"}, r'scheme: expected "fp16", "static", .* or "calibration", got "int8"'),
        ({"density": 0.0}, "density: expected a number above 0 and up to 0.1, got 0"),
        ({"density": 0.2}, "density: expected a number above 0 and up to 0.1, got 0.2"),
        (
            {"density": 0.02},
            r"a density that the file is calibrated for \(0.01, 0.03, 0.1\), got 0.02; calibrate "
            r'with densities=\[0.02\], or take scheme "dynamic"',
        ),
        ({"activation_bits": 1}, "activation_bits: expected 2 to 8, got 1"),
        ({"activation_bits": 9}, "activation_bits: expected 2 to 8, got 9"),
        ({"residual_dtype": "fp32"}, 'residual_dtype: expected "int8" or "fp16", got "fp32"'),
        ({"algorithm": "fft"}, "algorithm: expected .* got"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_out_of_range_are_named(model: Path, options: Any, problem: str) -> None:
    with pytest.raises(qe.Error, match=problem):
        Session(model, **options)


def test_quantization_loses_little(graph: qe.Graph, model: Path, samples: list[Array]) -> None:
    x = samples[3]
    (expected,) = reference.run(optimize(graph), x)
    ratios = {scheme: sqnr(Session(model, scheme).run(x), expected) for scheme in qe.SCHEMES}
    assert ratios["fp16"] > 50
    assert ratios["dynamic"] > 30
    assert ratios["qpp"] > ratios["dynamic"] - 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"scheme": 5}, "scheme: expected a string, got 5"),
        ({"algorithm": None}, "algorithm: expected a string, got None"),
        ({"static_bounds": 3}, "static_bounds: expected a string, got 3"),
        ({"residual_dtype": True}, "residual_dtype: expected a string, got True"),
        ({"threads": 1.5}, "threads: expected a whole number, got 1.5"),
        ({"threads": 2**40}, "threads: expected a whole number, got 1099511627776"),
        ({"activation_bits": "8"}, "activation_bits: expected a whole number, got '8'"),
        ({"density": "0.01"}, "density: expected a number, got '0.01'"),
    ],
)
def test_options_of_other_types_are_named(model: Path, options: Any, problem: str) -> None:
    with pytest.raises(qe.UnsupportedError, match=problem):
        Session(model, **options)


@pytest.mark.parametrize("shape", [(1, 3), (1.5, 3, 8, 8), "abcd", 4, (1, 3, 2**70, 8), None])
def test_shapes_to_prepare_are_of_four_sizes(model: Path, shape: Any) -> None:
    with pytest.raises(qe.ShapeError, match=r"expected shapes of 4 sizes \[N, C, H, W\], got "):
        Session(model, "fp16").prepare(shape)


@pytest.mark.parametrize("runs", [0, -3, 1.5, "3", None, 2**40, 2**70])
def test_runs_of_a_profile_are_a_number(model: Path, runs: Any) -> None:
    with pytest.raises(qe.UnsupportedError, match="runs: expected a whole number from 1 to"):
        Session(model, "fp16").profile(image(), runs=runs)


def test_what_is_no_array_is_refused(model: Path) -> None:
    session = Session(model, "fp16")
    wrong: list[Any] = [[[1.0], [1.0, 2.0]], [image(), None]]
    for x in wrong:
        with pytest.raises(qe.ShapeError, match="input 'x': expected an array"):
            session.run(x)
    wrong = [None, "image", object(), 3]
    for x in wrong:
        with pytest.raises(qe.DTypeError, match="input 'x': expected float32, got"):
            session.run(x)
    with pytest.raises(qe.ShapeError, match=r"expected inputs \['x'\], got \[5, 'y'\]"):
        session.run({5: image(), "y": image()})


def test_outputs_have_names_of_any_characters() -> None:
    names = ("a/b:0", "日本", " ", "a\0b", "'\"\\\n", "x" * 1000, "__metadata__")
    net = qe.GraphBuilder("names")
    x = net.input("x:0/in put", (None, 1, None, None))
    weight = np.ones((2, 1, 1, 1), np.float32)
    for index, name in enumerate(names):
        net.output(net.conv2d(x, weight * index, name=name))
    session = Session(serialize(net.build()), "fp16")
    assert session.outputs == names
    for index, name in enumerate(names):
        given = {"x:0/in put": np.ones((1, 1, 2, 2), np.float32)}
        y = session.run(given, outputs=name)
        np.testing.assert_array_equal(y, np.full((1, 2, 2, 2), index, np.float32))
        out = {name: np.empty_like(y)}
        session.run(given, out=out)
        np.testing.assert_array_equal(out[name], y)
    arrays = (np.empty_like(y), np.empty_like(y))
    with pytest.raises(qe.UnsupportedError, match="out: output 'a/b:0' occurs twice"):
        session.run(given, outputs=("a/b:0", "a/b:0"), out=arrays)


def test_names_that_no_file_can_hold_are_refused() -> None:
    net = qe.GraphBuilder("names")
    x = net.input("\ud800", (None, 1, None, None))
    net.output(net.relu(x, name="y"))
    with pytest.raises(qe.ModelError, match=r"value '\\ud800' is not named in Unicode"):
        net.build()
