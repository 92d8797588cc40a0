# SPDX-License-Identifier: Apache-2.0
"""What a session promises its user, on the machine it runs on."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import SCHEMES, Session

from device.make_models import MODEL, fixed_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.device

X = fixed_image(10, 12)


@pytest.fixture(params=SCHEMES)
def session(request: pytest.FixtureRequest, models: Path) -> Session:
    return Session(models / MODEL, request.param)


@pytest.fixture
def qpp(models: Path) -> Session:
    return Session(models / MODEL)


def test_inputs_and_outputs_are_described(qpp: Session) -> None:
    assert qpp.inputs == (qe.InputInfo("x", (1, 1, None, None)),)
    assert qpp.outputs == ("shuffle",)
    assert qpp.scheme == "qpp"


def test_output_is_an_enlarged_image(session: Session) -> None:
    for height, width in [(10, 12), (1, 1), (5, 17), (10, 12)]:
        y = session.run(fixed_image(height, width))
        assert y.shape == (1, 1, 3 * height, 3 * width)
        assert y.dtype == np.float32
        assert y.flags.c_contiguous
        assert np.isfinite(y).all()


def test_runs_repeat_to_the_last_bit(session: Session) -> None:
    first = session.run(X)
    session.run(fixed_image(4, 5))
    np.testing.assert_array_equal(session.run(X), first)
    np.testing.assert_array_equal(session.run({"x": X}), first)


def test_bytes_are_as_good_as_a_path(models: Path) -> None:
    one, two = Session(models / MODEL), Session((models / MODEL).read_bytes())
    np.testing.assert_array_equal(one.run(X), two.run(X))


def test_inputs_need_not_be_contiguous(session: Session) -> None:
    wide = np.repeat(X, 2, axis=3)
    np.testing.assert_array_equal(session.run(wide[..., ::2]), session.run(X))
    np.testing.assert_array_equal(session.run(np.asfortranarray(X)), session.run(X))


def test_out_is_written_and_returned(session: Session) -> None:
    out = np.full((1, 1, 30, 36), np.nan, np.float32)
    assert session.run(X, out=out) is out
    np.testing.assert_array_equal(out, session.run(X))


@pytest.mark.parametrize(
    ("out", "error", "problem"),
    [
        (np.empty((1, 1, 30, 35), np.float32), qe.ShapeError, "30, 36.*30, 35"),
        (np.empty((30, 36), np.float32), qe.ShapeError, "expected 4 dimensions"),
        (np.empty((1, 1, 30, 36)), qe.DTypeError, "float32 array for 'shuffle', got float64"),
        ([[0.0]], qe.DTypeError, "float32 array for 'shuffle', got list"),
        (np.empty((1, 1, 36, 30), np.float32).swapaxes(2, 3), qe.ShapeError, "C-contiguous"),
        (np.broadcast_to(np.float32(0), (1, 1, 30, 36)), qe.ShapeError, "writeable"),
        ((np.empty((1, 1, 30, 36), np.float32),) * 2, qe.ShapeError, "expected 1 arrays"),
    ],
)
def test_out_must_fit(out: Any, error: Any, problem: str, qpp: Session) -> None:
    with pytest.raises(error, match=problem):
        qpp.run(X, out=out)


@pytest.mark.parametrize(
    ("x", "error", "problem"),
    [
        (X[0], qe.ShapeError, r"'x': expected 4 dimensions \[N, C, H, W\], got .*\[1, 10, 12\]"),
        (
            np.concatenate([X, X], 1),
            qe.ShapeError,
            r"'x': expected .*\[1, 1, any, any\], got \[1, 2",
        ),
        (np.concatenate([X, X]), qe.ShapeError, r"expected .*\[1, 1, any, any\], got \[2, 1, 10"),
        (X[:, :, :0], qe.ShapeError, r"got \[1, 1, 0, 12\]"),
        (X.astype(np.float64), qe.DTypeError, r"'x': expected float32, got float64; .*astype"),
        (X.astype(np.float16), qe.DTypeError, "expected float32, got float16"),
        ((X * 255).astype(np.uint8), qe.DTypeError, "expected float32, got uint8"),
        (X.astype(">f4"), qe.DTypeError, "expected float32, got >f4"),
        (X.tolist(), qe.DTypeError, "expected float32, got float64"),
        ({"y": X}, qe.ShapeError, r"expected inputs \['x'\], got \['y'\]"),
    ],
)
def test_inputs_must_fit(x: Any, error: Any, problem: str, session: Session) -> None:
    before = session.run(X)
    with pytest.raises(error, match=problem):
        session.run(x)
    np.testing.assert_array_equal(session.run(X), before)  # the session is as good as before


def test_number_of_inputs_must_fit(qpp: Session) -> None:
    for inputs in ((), (X, X)):
        with pytest.raises(qe.ShapeError, match=f"expected 1 inputs .* got {len(inputs)}"):
            qpp.run(*inputs)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e6])
def test_numbers_that_are_not_finite(number: float, session: Session) -> None:
    x = X.copy()
    x[0, 0, 3, 4] = number
    if session.scheme == "fp16":
        finite = np.isfinite(session.run(x)).all()
        assert finite != np.isnan(number)  # tanh makes something of all but NaN
    else:
        with pytest.raises(qe.NonFiniteError, match="input 'x'"):
            session.run(x)


def test_errors_are_those_of_python(qpp: Session) -> None:
    """Whoever does not know the package may catch the built-in exceptions."""
    with pytest.raises(ValueError, match="dimensions"):
        qpp.run(X[0])
    with pytest.raises(TypeError, match="float32"):
        qpp.run(X.astype(np.float64))
    with pytest.raises(OSError, match="No such file"):
        Session("none.qpp")
    with pytest.raises(ValueError, match="model"):
        Session(b"none")


def test_stats_count_runs_and_clamps(session: Session) -> None:
    assert session.stats()["runs"] == 0
    for _ in range(3):
        session.run(X)
    session.run(X * 100)  # unlike any photograph
    stats = session.stats()
    assert stats["runs"] == 4
    if session.scheme == "qpp":
        assert stats["predictions"] == 4 * 3
        assert stats["clamped_predictions"]["x"] >= 1
    else:
        assert stats["predictions"] == 0
        assert not any(stats["clamped_predictions"].values())


def test_bounds_and_features(qpp: Session) -> None:
    qpp.run(X)
    (bounds,), (features,) = qpp.qparams(), qpp.features()
    assert bounds.shape == (3, 2)
    assert (bounds[:, 0] <= 0).all()
    assert (bounds[:, 1] >= 0).all()
    assert features.shape == (1, 5)
    assert (np.diff(features[0, :3]) >= 0).all()
    # `fit` reads logarithms of the features.
    assert features[0, 3:] == pytest.approx(np.log2([X.mean(), X.max()]), rel=1e-5)


def test_observing_tells_what_every_step_of_a_run_stores(session: Session) -> None:
    y = session.run(X)
    steps = [step for step in session.explain() if step["dtype"]]
    observed = session.observe(X)
    assert [(value.node, value.op) for value in observed] == [(s["node"], s["op"]) for s in steps]
    for value, step in zip(observed, steps, strict=True):
        assert value.stored.shape == step["shape"]
        assert value.stored.dtype == {"qai8": np.int8, "f16": np.float16}[step["dtype"]]
    np.testing.assert_array_equal(observed[-1].numbers, y)
    for value in observed:
        if value.stored.dtype == np.int8:
            lo, hi = session.qparams()[0][("x", "conv1", "conv2").index(value.value)]
            assert lo - value.scale <= value.numbers.min() <= value.numbers.max()
            assert value.numbers.max() <= hi + value.scale


def test_results_outlive_the_session(models: Path) -> None:
    session = Session(models / MODEL)
    y, bounds = session.run(X), session.qparams()
    copies = y.copy(), bounds.copy()
    session.run(X * 2)
    del session
    np.testing.assert_array_equal(y, copies[0])
    np.testing.assert_array_equal(bounds, copies[1])


def test_inputs_are_not_held(qpp: Session) -> None:
    counts = []
    for _ in range(3):
        for _ in range(20):
            qpp.run(X)
        counts.append(sys.getrefcount(X))
    assert len(set(counts)) == 1


def test_one_session_serves_several_threads(session: Session) -> None:
    """Shapes differ, so that every run would spoil the other's plan without the lock."""
    images = [fixed_image(4 + i, 9 - i) for i in range(5)]
    expected = [session.run(x) for x in images]

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(5, size=12):
            np.testing.assert_array_equal(session.run(images[i]), expected[i])
            assert session.stats()["runs"] > 0
            assert len(session.explain()) > 0

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, seed) for seed in range(4)]:
            future.result(timeout=120)


def test_sessions_of_several_threads_are_independent(models: Path) -> None:
    expected = {scheme: Session(models / MODEL, scheme).run(X) for scheme in SCHEMES}

    def work(scheme: str) -> None:
        mine = Session(models / MODEL, scheme, threads=2)
        for _ in range(5):
            np.testing.assert_array_equal(mine.run(X), expected[scheme])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, scheme) for scheme in SCHEMES]:
            future.result(timeout=120)


def test_run_releases_the_gil(qpp: Session) -> None:
    """While a thread runs the network, this one never has to wait for half as long."""
    x = fixed_image(48, 48)
    qpp.run(x)

    def longest_wait() -> float:
        """As a share of the run. The system may suspend a thread, too, hence several attempts."""
        start = time.perf_counter()
        thread = threading.Thread(target=qpp.run, args=(x,))
        thread.start()
        last, longest = start, 0.0
        while thread.is_alive():
            now = time.perf_counter()
            last, longest = now, max(longest, now - last)
        return longest / (time.perf_counter() - start)

    assert any(longest_wait() < 0.5 for _ in range(20))
