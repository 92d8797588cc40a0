# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

__version__: str

class Step(TypedDict):
    node: str
    op: str
    kernel: str
    dtype: str
    shape: tuple[int, int, int, int] | None
    macs: int
    bytes: int
    note: str

class Stats(TypedDict):
    runs: int
    samples: int
    predictions: int
    clamped_predictions: dict[str, int]
    widened_bounds: dict[str, int]
    dropped_outliers: dict[str, int]

class Memory(TypedDict):
    weights: int
    arena: int
    peak: int

class Kernel(TypedDict):
    name: str
    available: bool

class ObservedStep(TypedDict):
    sample: int
    step: int
    value: str
    stored: npt.NDArray[np.int8 | np.float16]
    residuals: npt.NDArray[np.float32] | None
    scale: float
    zero_point: int

class Session:
    def __init__(
        self,
        source: str | bytes,
        *,
        scheme: str,
        activation_bits: int = 8,
        threads: int = 1,
        cores: str = "all",
        static_bounds: str | None = None,
        algorithm: str = "auto",
        residual_dtype: str | None = None,
        density: float | None = None,
        limits: Mapping[str, int] = {},
    ) -> None: ...
    @property
    def inputs(self) -> list[tuple[str, list[int | None]]]: ...
    @property
    def outputs(self) -> list[str]: ...
    def prepare(self, shapes: Sequence[tuple[int, int, int, int]]) -> list[list[int]]: ...
    def run(
        self, inputs: Sequence[npt.NDArray[np.float32]], wanted: set[str]
    ) -> list[npt.NDArray[np.float32]]: ...
    def run_into(
        self,
        inputs: Sequence[npt.NDArray[np.float32]],
        outputs: dict[str, npt.NDArray[np.float32]],
    ) -> None: ...
    def profile(
        self, inputs: Sequence[npt.NDArray[np.float32]], runs: int
    ) -> npt.NDArray[np.int64]: ...
    def observe(self, inputs: Sequence[npt.NDArray[np.float32]]) -> list[ObservedStep]: ...
    def qparams(self) -> npt.NDArray[np.float32]: ...
    def features(self) -> npt.NDArray[np.float32]: ...
    def stats(self) -> Stats: ...
    def explain(self) -> list[Step]: ...
    def memory(self) -> Memory: ...

def read_model(
    source: str | bytes,
    limits: Mapping[str, int] = {},
) -> tuple[str, dict[str, npt.NDArray[np.float16 | np.float32]]]: ...
def limits() -> dict[str, tuple[int, int]]: ...
def cpu_features() -> dict[str, bool]: ...
def cores() -> dict[str, int]: ...
def is_emulated() -> bool: ...
def kernels() -> list[Kernel]: ...
