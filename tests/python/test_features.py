# SPDX-License-Identifier: Apache-2.0
"""Features as data: every kind and transform, of any value, measured, fitted and predicted from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import Calibration, CalibrationError, Feature, Position, Session, reference
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.quantization import FEATURE_KINDS, TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

STATISTICS: dict[str, Callable[[Array], Any]] = {
    "quantile": lambda x: np.quantile(x, 0.9, method="inverted_cdf"),
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "absmax": lambda x: np.abs(x).max(),
}
ALL_KINDS = tuple(
    Feature(kind, 0.9 if kind == "quantile" else None, transform=transform)
    for transform in TRANSFORMS
    for kind in FEATURE_KINDS
)


def log2(x: Any) -> Any:
    return np.log2(np.maximum(x, 2.0**-24))


def test_every_kind_and_transform_is_measured(graph: qe.Graph, samples: list[Array]) -> None:
    calibration = qe.calibrate(graph, samples[:3], features=ALL_KINDS, progress=False)
    assert calibration.features.shape == (3, 1, len(ALL_KINDS))
    for x, features in zip(samples, calibration.features[:, 0], strict=False):
        plain = [STATISTICS[kind](x) for kind in FEATURE_KINDS]
        logarithms = [
            log2(-value if kind == "min" else value)
            for kind, value in zip(FEATURE_KINDS, plain, strict=True)
        ]
        np.testing.assert_allclose(features, [*plain, *logarithms], rtol=1e-3)


@pytest.mark.parametrize("target_transform", TRANSFORMS)
def test_the_engine_predicts_as_the_predictor(
    graph: qe.Graph, samples: list[Array], target_transform: str, tmp_path: Path
) -> None:
    calibration = qe.calibrate(graph, samples, features=ALL_KINDS, progress=False)
    quantization = qe.fit(calibration, 1, target_transform=target_transform)
    qe.save(tmp_path / "a.qpp", graph, quantization)  # compares predictions, too
    session = Session(tmp_path / "a.qpp", "qpp")
    session.run(samples[3])
    (predictor,) = quantization.predictors
    assert predictor.weight.shape == (6, len(ALL_KINDS))
    (predicted,) = predictor.predict(session.features()[:, 0], calibration.calibrated_range)
    expected = np.stack([predicted[:, 0].clip(max=0), predicted[:, 1].clip(0)], axis=-1)
    np.testing.assert_allclose(session.qparams()[0], expected, rtol=1e-3, atol=1e-4)


def test_a_value_may_have_features_of_another(graph: qe.Graph, samples: list[Array]) -> None:
    """The value "act" is predicted from the input; "relu" from both, once "act" is known."""
    features = {
        "x": (Feature("max"), Feature("mean")),
        "body": (Feature("max", value="x"), Feature("min", value="head"), Feature("absmax")),
    }
    calibration = qe.calibrate(
        graph, samples, 1.0, positions=["x", "body"], features=features, progress=False
    )
    assert [position.features for position in calibration.plan.positions] == [*features.values()]
    assert calibration.features.shape == (20, 2, 3)
    assert np.isnan(calibration.features[:, 0, 2]).all()
    for i, x in enumerate(samples[:3]):
        values = reference.run_all(graph, x)
        assert calibration.features[i, :, 0].tolist() == [x.max(), x.max()]
        inner = [values["act"].min(), np.abs(values["relu"]).max()]
        np.testing.assert_allclose(calibration.features[i, 1, 1:], inner, rtol=0.01)
    quantization = qe.fit(calibration)
    assert [p.weight.shape for p in quantization.predictors] == [(4, 2), (2, 3)]
    session = Session(serialize(graph, quantization), "qpp")
    expected = Session(serialize(graph), "fp16").run(samples[0])
    assert sqnr(session.run(samples[0]), expected) > 20


def test_features_survive_a_file(graph: qe.Graph, samples: list[Array], tmp_path: Path) -> None:
    features = {"x": ALL_KINDS, "body": (Feature("max", value="head", transform="log"),)}
    calibration = qe.calibrate(
        graph, samples[:4], positions=["x", "body"], features=features, progress=False
    )
    calibration.save(tmp_path / "a.npz")
    loaded = Calibration.load(tmp_path / "a.npz")
    assert loaded.plan == calibration.plan
    np.testing.assert_array_equal(loaded.features, calibration.features)


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        ({"kind": "median"}, "expected one of the kinds quantile, mean, std"),
        ({"kind": "quantile"}, "alpha of a quantile: expected above 0.5 and up to 1, got None"),
        ({"kind": "max", "alpha": 0.9}, "expected no alpha for the kind 'max', got 0.9"),
        ({"kind": "max", "transform": "exp"}, 'expected the transform "identity" or "log"'),
    ],
)
def test_features_that_do_not_exist_are_refused(feature: Any, problem: str) -> None:
    with pytest.raises(CalibrationError, match=problem):
        Feature(**feature)


def test_features_of_unknown_values_are_refused(graph: qe.Graph) -> None:
    with pytest.raises(CalibrationError, match="the network has no value q"):
        qe.calibrate(graph, [], features=[Feature("max", value="q")])
    with pytest.raises(CalibrationError, match=r"the positions \['x'\], got \['head'\]"):
        qe.calibrate(graph, [], features={"head": [Feature("max")]})
    with pytest.raises(CalibrationError, match="expected at least one for every position"):
        qe.calibrate(graph, [], features=())


def test_a_feature_of_a_later_value_is_refused(graph: qe.Graph, samples: list[Array]) -> None:
    with pytest.raises(qe.ModelError, match="body"):
        qe.calibrate(graph, samples, features=[Feature("max", value="body")], progress=False)


def test_logarithms_of_targets_scale_with_the_sample() -> None:
    """Bounds that are a power of a feature are exact as logarithms only."""
    rng = np.random.default_rng(3)
    features = np.exp2(rng.uniform(-4, 4, (60, 1, 1)))
    bounds = np.stack([-(features[:, 0] ** 2), 3 * features[:, 0] ** 0.5], axis=-1)
    bounds[:, :, 0][features[:, 0] < 0.1] = 0
    plan = qe.Plan(0.99, ("a",), (Position("a", (0,), (Feature("max", transform="log"),)),))
    logarithms = np.log2(features).astype(np.float32)
    calibration = Calibration(plan, bounds.astype(np.float32), logarithms)
    (predictor,) = qe.fit(calibration, target_transform="log").predictors
    predicted = predictor.predict(logarithms[:, 0], calibration.calibrated_range)
    np.testing.assert_allclose(predicted[:, 0, 1], bounds[:, 0, 1], rtol=1e-4)
    zero = Calibration(plan, calibration.bounds * np.array([0, 1], np.float32), logarithms)
    (predictor,) = qe.fit(zero, target_transform="log").predictors
    assert (predictor.predict(logarithms[:, 0], zero.calibrated_range)[:, 0, 0] == 0).all()


def test_a_margin_moves_logarithms_outwards(graph: qe.Graph, samples: list[Array]) -> None:
    calibration = qe.calibrate(graph, samples, progress=False)
    plain, wide = (qe.fit(calibration, m, target_transform="log").predictors[0] for m in (0, 2))
    assert (wide.bias >= plain.bias).all()
    assert (wide.bias > plain.bias).any()


def test_unknown_target_transforms_are_refused(calibration: Calibration) -> None:
    with pytest.raises(CalibrationError, match='target_transform: expected "identity" or "log"'):
        qe.fit(calibration, target_transform="exp")
