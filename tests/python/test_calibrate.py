# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import Calibration, CalibrationError, FileError, Graph, calibrate, reference
from qppengine.calibrate import DENSITIES
from qppengine.model_file import load_graph
from qppengine.quantization import FEATURE_ALPHAS, TAIL_DENSITIES, Feature, Plan, Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qppengine.ir import Array

pytest.importorskip("safetensors")


def quantile(x: Array, alpha: float) -> Any:
    return np.quantile(x, alpha, method="inverted_cdf")


def assert_equal(one: Calibration, other: Calibration) -> None:
    assert one.plan == other.plan
    np.testing.assert_array_equal(one.bounds, other.bounds)
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.sparse_bounds, other.sparse_bounds)
    np.testing.assert_array_equal(one.tails, other.tails)


def test_plan_names_what_is_measured(calibration: Calibration) -> None:
    assert calibration.plan == Plan(
        0.999, ("x", "head", "body"), (Position("x", (0, 1, 2)),), DENSITIES
    )
    assert calibration.bounds.shape == (20, 3, 2)
    assert [bounds.shape for bounds in calibration.sparse_bounds] == [(20, 3, 2)] * 3
    assert calibration.features.shape == (20, 1, 5)


def test_features_and_input_bounds_are_exact_quantiles(
    calibration: Calibration, samples: list[Array]
) -> None:
    for i, x in enumerate(samples):
        lo, hi = -quantile(-x, 0.999), quantile(x, 0.999)
        assert calibration.bounds[i, 0].tolist() == [min(lo, 0), max(hi, 0)]
        expected = [*(quantile(x, alpha) for alpha in FEATURE_ALPHAS), x.mean(), x.max()]
        features = calibration.features[i, 0]
        assert features[[0, 1, 2, 4]].tolist() == [*expected[:3], expected[4]]
        # Pairs are averaged in fp16, each within 2**-11, before the mean is summed.
        np.testing.assert_allclose(features[3], expected[3], rtol=2**-11)


def test_inner_bounds_are_quantiles_of_the_float_network(
    graph: Graph, calibration: Calibration, samples: list[Array]
) -> None:
    for i, x in enumerate(samples[:5]):
        values = reference.run_all(graph, x)
        for row, name in ((1, "act"), (2, "relu")):
            expected = [-quantile(-values[name], 0.999), quantile(values[name], 0.999)]
            np.testing.assert_allclose(calibration.bounds[i, row], expected, rtol=0.01, atol=0.01)


def test_alpha_one_gives_the_extremes(graph: Graph, samples: list[Array]) -> None:
    extreme = calibrate(graph, samples[:2], 1.0, progress=False)
    assert extreme.bounds[1, 0].tolist() == [min(samples[1].min(), 0), samples[1].max()]


def test_bounds_of_a_density_are_those_of_its_alpha(graph: Graph, samples: list[Array]) -> None:
    many = calibrate(
        graph, samples[:3], densities=[0.1, 0.02, 0.1, 0.05, 0.04, 0.03], progress=False
    )
    assert many.plan.densities == (0.02, 0.03, 0.04, 0.05, 0.1)
    for density, calibration in zip(many.plan.densities, many.by_density, strict=True):
        alone = calibrate(graph, samples[:3], 1 - density, densities=(), progress=False)
        assert_equal(calibration, alone)


def test_densities_must_be_small(graph: Graph) -> None:
    for density in (0, -0.1, 0.2):
        with pytest.raises(CalibrationError, match=r"densities: expected above 0 and up to 0\.1"):
            calibrate(graph, [], densities=[0.01, density])


def test_densities_must_be_few(graph: Graph, samples: list[Array]) -> None:
    many = [i / 200 for i in range(1, 17)]
    assert len(calibrate(graph, samples[:1], densities=many, progress=False).sparse_bounds) == 16
    with pytest.raises(CalibrationError, match="densities: expected up to 16, got 17"):
        calibrate(graph, [], densities=[*many, 0.001])


def test_tails_begin_at_the_extremes(
    graph: Graph, samples: list[Array], calibration: Calibration
) -> None:
    extremes = calibrate(graph, samples, 1.0, densities=(), progress=False)
    assert calibration.tails.shape == (len(TAIL_DENSITIES), *calibration.bounds.shape)
    np.testing.assert_array_equal(calibration.tails[0], extremes.bounds)
    for density, sparse in zip(calibration.plan.densities, calibration.sparse_bounds, strict=True):
        np.testing.assert_array_equal(calibration.tails[TAIL_DENSITIES.index(density)], sparse)


def test_summaries(calibration: Calibration) -> None:
    lo, hi = calibration.bounds[..., 0], calibration.bounds[..., 1]
    np.testing.assert_allclose(calibration.mean_bounds[:, 1], hi.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(calibration.range_bounds.T, [lo.min(axis=0), hi.max(axis=0)])
    np.testing.assert_array_equal(
        calibration.calibrated_range.T,
        [lo.min(axis=0), lo.max(axis=0), hi.min(axis=0), hi.max(axis=0)],
    )


def thread_pool() -> Executor:
    return ThreadPoolExecutor(2)


def process_pool() -> Executor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("pool", [thread_pool, process_pool])
def test_executors_give_the_same_in_the_same_order(
    pool: Any, graph: Graph, samples: list[Array], calibration: Calibration
) -> None:
    with pool() as executor:
        parallel = calibrate(graph, iter(samples), 0.999, executor=executor, progress=False)
        assert_equal(parallel, calibration)
        # Workers change to the model of the next calibration.
        extreme = calibrate(graph, samples[:6], 1.0, executor=executor, progress=False)
    assert_equal(extreme, calibrate(graph, samples[:6], 1.0, progress=False))


def test_endless_sources_are_streamed(graph: Graph, samples: list[Array]) -> None:
    drawn = 0

    def endless() -> Iterator[Array]:
        nonlocal drawn
        for i in count():
            drawn += 1
            yield samples[i % len(samples)]

    assert len(calibrate(graph, islice(endless(), 7), progress=False).bounds) == 7
    assert drawn == 7


def test_executors_are_not_flooded(graph: Graph) -> None:
    """Samples are drawn a bounded number ahead of the ones measured."""
    x = np.zeros((1, 3, 4, 4), np.float32)
    measured = 0
    ahead = 0

    class Inline(ThreadPoolExecutor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            nonlocal measured
            future = super().submit(function, *args, **kwargs)
            future.result()
            measured += 1
            return future

    def source() -> Iterator[Array]:
        nonlocal ahead
        for i in range(600):
            ahead = max(ahead, i - 4 * measured)
            yield x

    with Inline(1) as executor:
        result = calibrate(graph, source(), executor=executor, progress=False)
    assert len(result.bounds) == 600
    assert ahead < 8


def test_empty_set_is_an_error(graph: Graph) -> None:
    with pytest.raises(CalibrationError, match="calibration set is empty"):
        calibrate(graph, [], progress=False)


@pytest.mark.parametrize(
    ("bad", "error", "problem"),
    [
        (np.zeros((3, 8, 8), np.float32), qe.ShapeError, r"4 dimensions .* \[3, 8, 8\]"),
        (np.zeros((1, 4, 8, 8), np.float32), qe.ShapeError, "any, 3, any, any"),
        (np.zeros((1, 3, 8, 8)), qe.DTypeError, "expected float32, got float64"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), qe.NonFiniteError, "input 'x'"),
        (np.full((1, 3, 8, 8), np.inf, np.float32), qe.NonFiniteError, "input 'x'"),
        ((np.zeros((1, 3, 8, 8), np.float32),) * 2, qe.ShapeError, "expected 1 inputs"),
    ],
)
@pytest.mark.parametrize("pool", [None, thread_pool])
def test_bad_samples_are_named_by_index(
    bad: Any, error: Any, problem: str, pool: Any, graph: Graph, samples: list[Array]
) -> None:
    source = [*samples[:6], bad, *samples]
    executor = pool and pool()
    with pytest.raises(error, match=f"^sample 6: .*{problem}"):
        calibrate(graph, source, executor=executor, progress=False)
    if executor:
        executor.shutdown()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.01])
def test_alpha_must_be_a_share_above_half(alpha: float, graph: Graph) -> None:
    with pytest.raises(CalibrationError, match=r"alpha: expected above 0\.5 and up to 1"):
        calibrate(graph, [], alpha)
    with pytest.raises(CalibrationError, match="alpha of a quantile: expected"):
        Feature("quantile", alpha)


def test_numbers_of_numpy_are_numbers(graph: Graph, samples: list[Array], tmp_path: Path) -> None:
    alpha, density = np.float32(0.99), np.float32(0.03)
    features = [Feature("quantile", alpha), Feature("max")]
    result = calibrate(graph, samples, alpha, densities=[density], features=features)
    qe.save(tmp_path / "a.qpp", graph, qe.fit(result))
    assert qe.Session(tmp_path / "a.qpp", density=0.03).stats()["runs"] == 0
    with pytest.raises(CalibrationError, match="densities: expected above 0"):
        calibrate(graph, samples, densities=["0.03"])  # type: ignore[list-item]


def test_positions_serve_what_follows_up_to_the_next(graph: Graph, samples: list[Array]) -> None:
    result = calibrate(graph, samples[:2], positions=["x", "body"], progress=False)
    assert result.plan.positions == (Position("x", (0, 1)), Position("body", (2,)))
    assert result.features.shape == (2, 2, 5)


def test_positions_must_cover_all_values(graph: Graph) -> None:
    with pytest.raises(CalibrationError, match=r"none of \['body'\] comes before 'x'"):
        calibrate(graph, [], positions=["body"])
    with pytest.raises(CalibrationError, match="the network has no value q, r"):
        calibrate(graph, [], positions=["q", "x", "r"])


def test_positions_stand_behind_the_head_and_in_front_of_every_stage() -> None:
    net = qe.GraphBuilder("stages")
    x = net.input("x", (1, 1, None, None))
    x = net.conv2d(x, np.ones((2, 1, 3, 3)), stride=2, padding=1, name="stem")
    x = net.max_pool2d(x, 3, stride=2, padding=1, name="pool")
    low = net.conv2d(x, np.ones((2, 2, 3, 3)), stride=2, padding=1, name="low")
    lower = net.conv2d(low, np.ones((2, 2, 3, 3)), stride=2, padding=1, name="lower")
    high = net.conv2d(net.resize(lower, scale=4, name="up"), np.ones((2, 2, 1, 1)), name="high")
    again = net.conv2d(high, np.ones((2, 2, 3, 3)), stride=2, padding=1, name="again")
    y = net.conv2d(net.global_avg_pool(again, name="mean"), np.ones((1, 2, 1, 1)), name="tail")
    net.output(y)
    graph = qe.keep_fp16(net.build(), skip_first=True, skip_last=True)
    image = np.full((1, 1, 64, 64), 0.01, np.float32)
    plan = calibrate(graph, [image], positions="first", progress=False).plan
    assert plan.values == ("stem", "low", "lower", "high")
    assert plan.positions == (Position("stem", (0, 1, 2, 3)),)
    plan = calibrate(graph, [image], positions="auto", progress=False).plan
    # The pool's output, the input of "low", has no row but that of "stem": nothing to predict.
    assert plan.positions == (Position("stem", (0,)), Position("low", (1, 2, 3)))
    with pytest.raises(CalibrationError, match='"first", "auto" or a list of values, got \'all\''):
        calibrate(graph, [], positions="all")


def test_every_input_predicts_its_own_branch() -> None:
    net = qe.GraphBuilder("two")
    a, b = net.input("a", (1, 1, None, None)), net.input("b", (1, 2, None, None))
    inner = net.conv2d(a, np.ones((2, 1, 3, 3)), name="inner")
    net.output(net.conv2d(b, np.ones((1, 2, 1, 1))), net.conv2d(inner, np.ones((1, 2, 1, 1))))
    image = np.ones((1, 2, 6, 6), np.float32)
    result = calibrate(net.build(), [(image[:, :1], image)] * 3, progress=False)
    assert result.plan.values == ("a", "b", "inner")
    assert result.plan.positions == (Position("a", (0, 2)), Position("b", (1,)))
    assert result.bounds[2].tolist() == [[0, 1], [0, 1], [0, 9]]


def test_progress_bar_knows_the_number_of_samples(
    graph: Graph, samples: list[Array], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    calibrate(graph, samples[:3])
    assert "0/3" in capsys.readouterr().err
    calibrate(graph, samples[:3], progress=False)
    assert capsys.readouterr().err == ""


def test_statistics_survive_a_file(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "statistics"
    calibration.save(path)
    assert_equal(Calibration.load(path), calibration)


def test_files_that_are_no_statistics(calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        Calibration.load(tmp_path / "none.npz")
    with pytest.raises(FileError, match="cannot write"):
        calibration.save(tmp_path / "none" / "a.npz")
    path = tmp_path / "a.npz"
    calibration.save(path)
    data = path.read_bytes()
    for content in (b"", b"junk", data[:100], data[: len(data) // 2]):
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match="is not a calibration"):
            Calibration.load(path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(CalibrationError, match=r"not an \.npz file"):
        Calibration.load(tmp_path / "b.npy")
    odd = Calibration(calibration.plan, calibration.bounds[:, :2], calibration.features)
    odd.save(path)
    with pytest.raises(CalibrationError, match="do not match"):
        Calibration.load(path)


def edit_plan(old: str, new: str) -> dict[str, Any]:
    """A change of the JSON text of the plan."""
    return {"plan": lambda text: np.array(str(text).replace(old, new))}


def _rewrite(path: Path, **changes: Any) -> None:
    """Replaces arrays of an ``.npz`` file."""
    with np.load(path) as data:
        fields = dict(data)
    np.savez(path, **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bounds": lambda a: a.astype(np.float64)}, "bounds: expected float32, got float64"),
        ({"features": lambda a: a.astype(np.int32)}, "features: expected float32, got int32"),
        ({"tails": lambda a: a[:2]}, r"tails (2, 20, 3, 2) do not match 3 values"),
        ({"sparse_bounds": lambda a: a.astype(str)}, "sparse_bounds: expected float32, got <U32"),
        ({"bounds": lambda a: a * np.float32(np.nan)}, "bounds: expected finite numbers"),
        ({"features": lambda a: a / np.float32(0)}, "features: expected finite numbers"),
        ({"bounds": lambda a: a[..., ::-1]}, "bounds: expected lo, hi in this order"),
        ({"bounds": lambda a: a[0]}, "bounds (3, 2), features (20, 1, 5)"),
        ({"bounds": lambda a: a[0, 0, 0]}, "bounds (), features (20, 1, 5)"),
        (edit_plan('"rows": [0', '"rows": [1'), "positions: expected every row from 0 to 2"),
        (edit_plan('"alpha": 0.999,', '"alpha": NaN,'), "alpha: expected above 0.5 and up to 1"),
        (edit_plan("0.9998}", "1.9998}"), "alpha of a quantile: expected above 0.5"),
        (edit_plan('"densities": [0.01', '"densities": [1.0'), "densities: expected above 0 and"),
        (edit_plan('"max"', '"median"'), "expected one of the kinds quantile, mean"),
        (edit_plan('"max"', '"max", "alpha": 0.9'), "no alpha for the kind 'max'"),
        (edit_plan('"max"', '"max", "transform": "exp"'), 'transform "identity" or "log"'),
        (edit_plan('"max"', '"max", "size": 3'), "'size'"),
        (edit_plan('"values"', '"value"'), "'values'"),
        (
            {
                "bounds": lambda a: a[:0],
                "features": lambda a: a[:0],
                "sparse_bounds": lambda a: a[:, :0],
                "tails": lambda a: a[:, :0],
            },
            "expected at least one sample, got 0",
        ),
    ],
)
def test_files_of_wrong_statistics_name_the_problem(
    calibration: Calibration, tmp_path: Path, changes: Any, problem: str
) -> None:
    path = tmp_path / "a.npz"
    calibration.save(path)
    with np.load(path) as data, np.errstate(all="ignore"):
        changed = {name: change(data[name]) for name, change in changes.items()}
    _rewrite(path, **changed)
    with pytest.raises(
        CalibrationError, match=re.escape("a.npz' is not a calibration: ")
    ) as caught:
        Calibration.load(path)
    assert problem in str(caught.value)


@pytest.mark.parametrize("path", ["", ".", "a\0b", None, 5, b"a.npz"])
def test_what_names_no_file_is_refused(graph: Graph, calibration: Calibration, path: Any) -> None:
    calls: list[Any] = [
        calibration.save,
        Calibration.load,
        lambda path: qe.save(path, graph, calibration),
    ]
    if not isinstance(path, bytes):  # which these read as a model
        calls += [load_graph, qe.Session]
    for call in calls:
        with pytest.raises(FileError, match="expected the path of a file, got"):
            call(path)
