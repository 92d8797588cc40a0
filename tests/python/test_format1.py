# SPDX-License-Identifier: Apache-2.0
"""Model files and calibrations of format 1, kept in the folder data, still load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import qppengine as qe
from qppengine.model_file import load_graph, serialize, to_bytes
from qppengine.quantization import DEFAULT_FEATURES
from qppengine.session import SCHEMES, Session, read_model

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

DATA = Path(__file__).parent / "data"
MODEL = DATA / "format1.qpp"
CALIBRATION = qe.Calibration.load(DATA / "format1.npz")


def test_the_graph_loads() -> None:
    graph = load_graph(MODEL)
    assert [node.name for node in graph.nodes] == ["a", "b", "c"]
    assert graph.quantized_values == CALIBRATION.plan.values


def test_the_calibration_loads() -> None:
    plan = CALIBRATION.plan
    assert (plan.alpha, plan.densities) == (0.99, (0.03,))
    assert plan.positions == (qe.Position("x", (0, 1)), qe.Position("b", (2,)))
    assert plan.positions[0].features == DEFAULT_FEATURES


def test_the_model_runs_as_one_of_format_2() -> None:
    """The same tensors with a graph in format 2 give the same outputs in every scheme."""
    text, tensors = read_model(MODEL)
    document = json.loads(text)
    quantization = document["quantization"]
    quantization["calibrated_range"] = quantization.pop("seen")
    for predictor in quantization["predictors"]:
        kinds = [{"kind": "quantile", "alpha": alpha} for alpha in predictor.pop("alphas")]
        predictor["features"] = [*kinds, {"kind": "mean"}, {"kind": "max"}]
    current = to_bytes(json.dumps(document), tensors)
    x = np.random.default_rng(0).random((1, 2, 20, 20), np.float32)
    for scheme in SCHEMES:
        for density in (None, 0.03) if scheme != "fp16" else (None,):
            old, new = (Session(model, scheme, density=density) for model in (MODEL, current))
            np.testing.assert_array_equal(old.run(x), new.run(x))
            np.testing.assert_array_equal(old.qparams(), new.qparams())
            np.testing.assert_array_equal(old.features(), new.features())


def test_a_file_of_the_same_calibration_predicts_the_same() -> None:
    written = serialize(load_graph(MODEL), qe.fit(CALIBRATION, 0))
    assert read_model(MODEL)[1].keys() - read_model(written)[1].keys() == {"qparams/seen"}
    x = np.random.default_rng(1).random((1, 2, 16, 16), np.float32)
    old, new = Session(MODEL), Session(written)
    np.testing.assert_allclose(old.run(x), new.run(x), atol=0.1)
    np.testing.assert_allclose(old.qparams(), new.qparams(), rtol=1e-3, atol=1e-3)
