"""Latencies of a run, summed up. Pure: arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles of `count` latencies, in milliseconds; all 0 where there are none."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0

    @classmethod
    def of_seconds(cls, seconds: ArrayLike) -> Latencies:
        """Sum up latencies given in seconds, in any order."""
        values = np.asarray(seconds, dtype=np.float64) * 1e3
        if values.size == 0:
            return cls()
        p50, p90, p99, p999 = (float(value) for value in np.percentile(values, (50, 90, 99, 99.9)))
        return cls(int(values.size), float(values.mean()), p50, p90, p99, p999, float(values.max()))


@dataclass(frozen=True, slots=True)
class Window:
    """Latencies of the requests that were due in one slice of a run. start_s: seconds since the run began."""

    start_s: float
    latencies: Latencies


def over_time(due_s: Sequence[float], latency_s: Sequence[float], window_s: float) -> list[Window]:
    """Cut a run into windows by the time at which each request was due; empty windows are left out."""
    due = np.asarray(due_s, dtype=np.float64)
    latency = np.asarray(latency_s, dtype=np.float64)
    index = np.floor(due / window_s).astype(np.int64)
    return [Window(float(at * window_s), Latencies.of_seconds(latency[index == at])) for at in np.unique(index)]
