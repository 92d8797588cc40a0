# SPDX-License-Identifier: Apache-2.0
"""The types of the reports of a session: dictionaries with fixed keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Step(TypedDict):
    """A step of a run; shapes and counts are those of the whole batch."""

    node: str  # its name
    op: str
    kernel: str  # "" for steps without one
    dtype: str
    shape: tuple[int, int, int, int] | None  # [N, H, W, C]; None before `prepare` or a first run
    macs: int  # multiply-accumulates, as the formula of the operation needs them
    bytes: int  # of inputs, output and constants
    note: str  # why the step is not in int8 although the scheme is; else ""


class StepTime(Step):
    """A step of a profiled run."""

    ms: float | None  # median over the runs, of all samples; None where timing is not available
    share: float | None  # of the time of all steps, in percent


class Stats(TypedDict):
    """Counts since a session opened; dictionaries count by value."""

    runs: int
    samples: int  # of the batches of all runs
    predictions: int  # of bounds, one per value and sample
    clamped_predictions: dict[str, int]  # predictions clamped to the calibrated range
    widened_bounds: dict[str, int]  # bounds that would have clipped too much
    dropped_outliers: dict[str, int]  # outliers beyond the capacity of their list


class Memory(TypedDict):
    """Sizes in bytes."""

    weights: int  # packed
    arena: int  # of all values and the scratch memory of a sample
    peak: int  # largest size of live values at one step, the lower bound of an arena


class SessionOption(TypedDict):
    """An option of a session, as the engine describes it."""

    name: str
    type: str  # "choice", "integer" or "number"
    default: str | int | float | None  # None: not given
    choices: list[str] | None
    min: float | None  # of an integer; a number is above it
    max: float | None
    help: str


class Kernel(TypedDict):
    """A kernel of this build."""

    name: str
    available: bool  # whether this CPU can run it


class ObservedStep(TypedDict):
    """A value of one sample as a step stores it; `StoredValue` has the same fields."""

    sample: int
    step: int
    value: str
    stored: npt.NDArray[np.int8 | np.float16]
    residuals: npt.NDArray[np.float32] | None
    scale: float
    zero_point: int
