"""The limit: ONNX Runtime alone in a process, no network, over batch sizes.

Runs as a process of its own (`python -m loadtests.bench.limit MODEL SECONDS`) and prints JSON, so that its threads and
memory do not stay in the benchmark's process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from loadtests.plain_server import load
from loadtests.tensors import sample_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnxruntime as ort

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Point:
    """One batch size. rate: rows per second with a thread per core; run_ms: median time of one run."""

    rows: int
    rate: float
    run_ms: float


def best(points: Sequence[Point]) -> Point:
    """The batch size with the highest rate."""
    return max(points, key=lambda point: point.rate)


def measure(path: Path, seconds: float) -> list[Point]:
    """All batch sizes in a process of its own, `seconds` each."""
    command = [sys.executable, "-m", "loadtests.bench.limit", str(path), f"{seconds:g}"]
    timeout = 120 + 10 * seconds * len(BATCHES)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    return [Point(**point) for point in json.loads(done.stdout)]


def _points(path: str, seconds: float) -> list[Point]:
    session = load(path, len(os.sched_getaffinity(0)))
    return [_point(session, rows, seconds) for rows in BATCHES]


def _point(session: ort.InferenceSession, rows: int, seconds: float) -> Point:
    inputs = sample_inputs(session, rows)
    session.run(None, inputs)
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 3:
        at = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - at)
    return Point(rows, rows * len(times) / sum(times), 1e3 * median(times))


def main() -> None:
    """Entry of the child process."""
    path, seconds = sys.argv[1:]
    print(json.dumps([asdict(point) for point in _points(path, float(seconds))]))


if __name__ == "__main__":
    main()
