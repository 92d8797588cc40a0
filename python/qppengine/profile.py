# SPDX-License-Identifier: Apache-2.0
"""The times of the steps of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qppengine.records import Step, StepTime


class Profile:
    """The steps of some runs and their times.

    Args:
        steps: The steps as `Session.explain` reports them, for the whole batch.
        times: Begin and end of every step in nanoseconds, int64 ``[runs, N, steps, 2]`` for a batch
            of N samples, or None under an emulator, where timing is not available.
    """

    def __init__(self, steps: Sequence[Step], times: npt.NDArray[np.int64] | None) -> None:
        self._steps = steps
        self._times = times

    @property
    def rows(self) -> list[StepTime]:
        """One row per step, ready for JSON: the fields of `Session.explain`, and its time.

        ``ms`` is the time of all samples, as the median of the runs, ``share`` in percent that of
        all steps; None without times.
        """
        if self._times is None:
            return [{**step, "ms": None, "share": None} for step in self._steps]
        milliseconds = np.median(np.diff(self._times)[..., 0].sum(axis=1), axis=0) * 1e-6
        total = max(float(milliseconds.sum()), 1e-9)
        return [
            {**step, "ms": round(float(ms), 4), "share": round(100 * float(ms) / total, 1)}
            for step, ms in zip(self._steps, milliseconds, strict=True)
        ]

    def trace(self) -> dict[str, Any]:
        """All runs in the format of chrome://tracing and Perfetto, ready for JSON."""
        events: list[dict[str, Any]] = []
        if self._times is None:
            return {"traceEvents": events}
        batch = self._times.shape[1]
        for times in (self._times - self._times.flat[0]).tolist():
            events += (
                {
                    "name": step["node"],
                    "cat": step["op"],
                    "ph": "X",
                    "ts": begin / 1000,
                    "dur": (end - begin) / 1000,
                    "pid": 0,
                    "tid": 0,
                    "args": {
                        "kernel": step["kernel"],
                        "sample": sample,
                        "macs": step["macs"] // batch,
                    },
                }
                for sample, of_sample in enumerate(times)
                for step, (begin, end) in zip(self._steps, of_sample, strict=True)
            )
        return {"traceEvents": events}
