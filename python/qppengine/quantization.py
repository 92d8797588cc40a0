# SPDX-License-Identifier: Apache-2.0
"""The quantization of a network as data.

A `Plan` lists the quantized values and the features of the positions that predict their bounds. A
`Calibration` holds both as measured on samples. A `Quantization` holds the data of a model file:
static bounds and a `Predictor` for every position.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import CalibrationError
from qppengine.paths import read_regular_file, to_path, write_file

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt

    from qppengine.ir import Array

FEATURE_KINDS = ("quantile", "mean", "std", "min", "max", "absmax")
TRANSFORMS = ("identity", "log")
MAX_DENSITY = 0.1
MAX_DENSITIES = 16
# Calibration measures the tails of every value at these densities, from its extremes inwards: no
# value has 10^12 elements.
TAIL_DENSITIES = (1e-12, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
MIN_MAGNITUDE = 2.0**-24  # logarithms replace smaller magnitudes by it; it represents 0


def _check_alpha(name: str, alpha: Any) -> None:
    if not isinstance(alpha, Real) or not 0.5 < alpha <= 1:  # type: ignore[operator]
        raise CalibrationError(f"{name}: expected above 0.5 and up to 1, got {alpha}")


@dataclass(frozen=True)
class Feature:
    """A statistic of a value, one input of a predictor. Raises `CalibrationError` if invalid.

    ``kind`` is one of `FEATURE_KINDS`; only "quantile" has an ``alpha``, which is above 0.5 and up
    to 1. ``value`` is the name of the value, None that of the predictor's position. ``transform``
    "log" replaces the statistic x by log2(max(x, 2**-24)), and a "min" by log2(max(-x, 2**-24)).
    """

    kind: str
    alpha: float | None = None
    value: str | None = None
    transform: str = "identity"

    def __post_init__(self) -> None:
        if self.kind not in FEATURE_KINDS:
            raise CalibrationError(
                f"features: expected one of the kinds {', '.join(FEATURE_KINDS)}, got {self.kind!r}"
            )
        if self.transform not in TRANSFORMS:
            raise CalibrationError(
                f'features: expected the transform "identity" or "log", got {self.transform!r}'
            )
        if self.kind == "quantile":
            _check_alpha("features: alpha of a quantile", self.alpha)
        elif self.alpha is not None:
            raise CalibrationError(
                f"features: expected no alpha for the kind {self.kind!r}, got {self.alpha}"
            )


# Of the quantiles that one pass over the tail of a value finds, these predict photographs that the
# regressor has not been fitted to best: bench/accuracy/feature_alphas.py.
FEATURE_ALPHAS = (0.997, 0.999, 0.9998)
DEFAULT_FEATURES = (
    *(Feature("quantile", alpha) for alpha in FEATURE_ALPHAS),
    Feature("mean"),
    Feature("max"),
)


class Position(NamedTuple):
    """A value of the network whose features predict the bounds of some rows of ``Plan.values``."""

    value: str
    rows: tuple[int, ...]
    features: tuple[Feature, ...] = DEFAULT_FEATURES


@dataclass(frozen=True)
class Plan:
    """Values, bounds and features that calibration measures.

    V is the number of ``values``, P that of ``positions``, D that of ``densities``, and F the
    largest number of features of a position. Raises `CalibrationError` if invalid.
    """

    alpha: float  # the bounds are the alpha-quantiles of a value from both ends
    values: tuple[str, ...]  # the quantized values
    positions: tuple[Position, ...]
    densities: tuple[float, ...] = ()  # of dense + sparse execution

    def __post_init__(self) -> None:
        _check_alpha("alpha", self.alpha)
        for density in self.densities:
            if not isinstance(density, Real) or not 0 < density <= MAX_DENSITY:
                raise CalibrationError(
                    f"densities: expected above 0 and up to {MAX_DENSITY}, got {density}"
                )
        if not all(position.features for position in self.positions):
            raise CalibrationError("features: expected at least one for every position, got none")
        assigned = sorted(row for position in self.positions for row in position.rows)
        if assigned != list(range(len(self.values))):
            raise CalibrationError(
                f"positions: expected every row from 0 to {len(self.values) - 1} at one position, "
                f"got the rows {assigned}"
            )

    @property
    def max_features(self) -> int:
        """F, the largest number of features of a position."""
        return max((len(position.features) for position in self.positions), default=0)

    @property
    def is_feature(self) -> npt.NDArray[np.bool_]:
        """Which of ``Calibration.features`` are not padding, ``[P, F]``."""
        lengths = np.array([len(position.features) for position in self.positions], int)
        return np.arange(self.max_features) < lengths[:, None]

    def to_json(self) -> dict[str, Any]:
        """The plan as model files hold it: ``quantization`` in docs/model-format.md."""
        return {
            "alpha": float(self.alpha),
            "densities": [float(density) for density in self.densities],
            "values": list(self.values),
            "predictors": [
                {
                    "position": position.value,
                    "rows": list(position.rows),
                    "features": [_feature_to_json(feature) for feature in position.features],
                }
                for position in self.positions
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` returned. Other keys are ignored.

        Raises `CalibrationError`, or `KeyError` and `TypeError` for a document of another form.
        """
        return cls(
            float(document["alpha"]),
            tuple(document["values"]),
            tuple(
                Position(
                    predictor["position"],
                    tuple(predictor["rows"]),
                    tuple(Feature(**feature) for feature in predictor["features"]),
                )
                for predictor in document["predictors"]
            ),
            tuple(document["densities"]),
        )


@dataclass(frozen=True, eq=False)
class Calibration:
    """Statistics of N samples.

    ``bounds`` ``[N, V, 2]``: lo, hi of every quantized value, the alpha-quantiles from both ends.
    A quantile that would clip everything on its side of zero is replaced by the extreme, limited to
    the magnitude of the other bound, unless that is zero as well.
    ``features`` ``[N, P, F]``: those of every position, padded with NaN to the longest list.
    ``sparse_bounds``: for every density bounds as above, of alpha = 1 - density.
    ``tails`` ``[K, N, V, 2]``: such bounds for `TAIL_DENSITIES`, from which a margin is fitted;
    K is 0 if they were not measured. All are float32.
    """

    plan: Plan
    bounds: Array
    features: Array
    sparse_bounds: tuple[Array, ...] = ()
    tails: Array = field(default_factory=lambda: np.empty((0, 0, 0, 2), np.float32))

    @property
    def by_density(self) -> tuple[Calibration, ...]:
        """For every density the calibration of alpha = 1 - density."""
        return tuple(
            replace(
                self,
                plan=replace(self.plan, alpha=1 - density, densities=()),
                bounds=bounds,
                sparse_bounds=(),
            )
            for density, bounds in zip(self.plan.densities, self.sparse_bounds, strict=True)
        )

    @property
    def mean_bounds(self) -> Array:
        """Mean of the bounds over the samples, ``[V, 2]``."""
        return np.asarray(self.bounds.mean(axis=0, dtype=np.float64), np.float32)

    @property
    def range_bounds(self) -> Array:
        """The bounds that contain those of all samples, ``[V, 2]``."""
        return self.calibrated_range[:, [0, 3]]

    @property
    def calibrated_range(self) -> Array:
        """Smallest and largest lo, smallest and largest hi of every value, ``[V, 4]``."""
        low, high = self.bounds.min(axis=0), self.bounds.max(axis=0)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=-1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the statistics as an ``.npz`` file. Raises `FileError`."""
        fields: dict[str, Any] = {
            "plan": json.dumps(self.plan.to_json()),
            "bounds": self.bounds,
            "features": self.features,
            "sparse_bounds": np.asarray(self.sparse_bounds, np.float32).reshape(
                len(self.sparse_bounds), *self.bounds.shape
            ),
            "tails": self.tails,
        }
        data = io.BytesIO()
        np.savez(data, **fields)
        write_file(path, data.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads a file that `save` wrote.

        Raises `FileError` for a file that cannot be read, and `CalibrationError` for one that is
        not a calibration: other dtypes or shapes, no samples, or numbers that are not finite.
        """
        source = to_path(path)
        file = io.BytesIO(read_regular_file(source))
        try:
            data = np.load(file, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise TypeError("it is not an .npz file")
            plan = (
                Plan.from_json(json.loads(str(data["plan"])))
                if "plan" in data
                else _plan_of_format_1(data)
            )
            bounds, features = data["bounds"], data["features"]
            sparse_bounds = data["sparse_bounds"]
            tails = data["tails"] if "tails" in data else bounds[None][:0]  # added later
            _check_statistics(plan, bounds, features, sparse_bounds, tails)
        except Exception as error:  # np.load documents no exceptions for a damaged file
            raise CalibrationError(f"{str(source)!r} is not a calibration: {error}") from error
        return cls(plan, bounds, features, tuple(sparse_bounds), tails)


@dataclass(frozen=True, eq=False)
class Predictor:
    """The linear regressor of one position: targets = weight @ features + bias.

    ``weight`` ``[2R, F]`` and ``bias`` ``[2R]``, float32; row 2i predicts lo of
    ``position.rows[i]`` and row 2i + 1 its hi, or with ``target_transform`` "log" the logarithms to
    base 2 of their magnitudes -lo and hi. ``relative_mse`` ``[2R]`` is the mean squared error of
    the targets, without margin, relative to their variance: 0 is exact, 1 no better than the mean.
    It is that of the calibration set or, with a fitted margin, of samples that were left out.
    """

    position: Position
    weight: Array
    bias: Array
    relative_mse: npt.NDArray[np.float64]
    target_transform: str = "identity"

    def predict(self, features: Array, calibrated_range: Array) -> Array:
        """Bounds ``[N, R, 2]`` from features ``[N, F]``, clamped to their ranges in calibration.

        Bounds that contain zero only are replaced by the widest of calibration. `calibrated_range`
        is that of `Calibration`, for all values.
        """
        targets = (features @ self.weight.T + self.bias).reshape(len(features), -1, 2)
        bounds = from_targets(targets, self.target_transform)
        limits = calibrated_range[list(self.position.rows)]
        bounds = np.clip(bounds, limits[:, [0, 2]], limits[:, [1, 3]])
        empty = (bounds[..., :1] >= 0) & (bounds[..., 1:] <= 0)
        return np.asarray(np.where(empty, limits[:, [0, 3]], bounds))


@dataclass(frozen=True, eq=False)
class BoundSet:
    """Bounds of all values for one alpha: static ones by three rules, and predictors."""

    mean: Array  # [V, 2]
    range: Array  # [V, 2]
    fitted: Array  # [V, 2]
    calibrated_range: Array  # [V, 4], as in `Calibration`
    predictors: tuple[Predictor, ...]  # one for every position


@dataclass(frozen=True, eq=False)
class Quantization:
    """All that a model file holds for quantized runs.

    ``sets`` are the bounds of ``plan.alpha``, then those of every density. Without sets, a file
    can be calibrated only.
    """

    plan: Plan
    sets: tuple[BoundSet, ...] = ()

    @property
    def predictors(self) -> tuple[Predictor, ...]:
        """The predictors of ``plan.alpha``."""
        return self.sets[0].predictors


def to_targets(bounds: npt.NDArray[Any], transform: str) -> npt.NDArray[Any]:
    """The targets of a regressor for bounds ``[..., 2]``."""
    if transform == "identity":
        return bounds
    return np.log2(np.maximum(bounds * _SIGNS, MIN_MAGNITUDE))


def from_targets(targets: npt.NDArray[Any], transform: str) -> npt.NDArray[Any]:
    """The bounds for the targets ``[..., 2]`` of a regressor."""
    if transform == "identity":
        return targets
    magnitudes = np.exp2(targets)
    return np.where(magnitudes > MIN_MAGNITUDE, magnitudes, 0).astype(targets.dtype) * _SIGNS


_SIGNS = np.array([-1, 1], np.float32)  # of lo and hi


def _feature_to_json(feature: Feature) -> dict[str, Any]:
    """The fields of a feature, without those at their defaults."""
    fields = {name: x for name, x in asdict(feature).items() if x not in (None, "identity")}
    if feature.alpha is not None:
        fields["alpha"] = float(feature.alpha)
    return fields


def _plan_of_format_1(data: Mapping[str, npt.NDArray[Any]]) -> Plan:
    """The plan of an ``.npz`` file from before features were listed."""
    assigned = data["row_positions"].tolist()
    features = (
        *(Feature("quantile", alpha) for alpha in data["feature_alphas"].tolist()),
        Feature("mean"),
        Feature("max"),
    )
    positions = tuple(
        Position(value, tuple(row for row, p in enumerate(assigned) if p == index), features)
        for index, value in enumerate(data["positions"].tolist())
    )
    return Plan(
        float(data["alpha"]),
        tuple(data["values"].tolist()),
        positions,
        tuple(data["densities"].tolist()),
    )


def _check_statistics(
    plan: Plan,
    bounds: npt.NDArray[Any],
    features: npt.NDArray[Any],
    sparse_bounds: npt.NDArray[Any],
    tails: npt.NDArray[Any],
) -> None:
    """Checks the arrays of a file against its plan."""
    samples = bounds.shape[:1]
    if samples == (0,):
        raise CalibrationError("expected at least one sample, got 0")
    expected = (*samples, len(plan.values), 2)
    if (
        bounds.shape != expected
        or features.shape != (*samples, len(plan.positions), plan.max_features)
        or sparse_bounds.shape != (len(plan.densities), *expected)
        or tails.shape[1:] != expected
        or len(tails) not in (0, len(TAIL_DENSITIES))
    ):
        raise CalibrationError(
            f"bounds {bounds.shape}, features {features.shape}, bounds of densities "
            f"{sparse_bounds.shape} and tails {tails.shape} do not match {len(plan.values)} values "
            f"and {len(plan.positions)} positions of up to {plan.max_features} features"
        )
    for name, array in (
        ("bounds", bounds),
        ("features", features),
        ("sparse_bounds", sparse_bounds),
        ("tails", tails),
    ):
        if array.dtype != np.float32:
            raise CalibrationError(f"{name}: expected float32, got {array.dtype}")
        if not np.isfinite(array[..., plan.is_feature] if name == "features" else array).all():
            raise CalibrationError(f"{name}: expected finite numbers, got NaN or infinity")
        if name != "features" and (array[..., 0] > array[..., 1]).any():
            raise CalibrationError(f"{name}: expected lo, hi in this order, got lo above hi")
