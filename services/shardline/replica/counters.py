"""Statistics of one model version on one replica, kept as plain numbers: cheap to add to, rendered when asked.

The names follow Triton's ModelStatistics: an inference is a row, an execution a batch. Durations are nanoseconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, count: int, seconds: float) -> None:
        self.count += count
        self.ns += int(seconds * 1e9)


@dataclass(slots=True)
class BatchTimes:
    """Durations of the batches of one size (rows before padding)."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Counters:
    """Totals since the version was loaded. requests count calls; last_ms is Unix milliseconds."""

    inferences: int = 0
    executions: int = 0
    last_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchTimes] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def executed(
        self,
        rows: int,
        calls: Sequence[int],
        queue_s: Sequence[float],
        input_s: float,
        compute_s: float,
        output_s: float,
    ) -> None:
        """Take one executed batch. calls, queue_s: per chunk, its calls and how long they waited."""
        requests = sum(calls)
        waited = sum(count * seconds for count, seconds in zip(calls, queue_s, strict=True))
        self.inferences += rows
        self.executions += 1
        self.last_ms = time.time_ns() // 1_000_000
        self.success.add(requests, waited + requests * (input_s + compute_s + output_s))
        self.queue.add(requests, waited)
        self.compute_input.add(requests, requests * input_s)
        self.compute_infer.add(requests, requests * compute_s)
        self.compute_output.add(requests, requests * output_s)
        times = self.batches.get(rows)
        if times is None:
            times = self.batches[rows] = BatchTimes()
        times.compute_input.add(1, input_s)
        times.compute_infer.add(1, compute_s)
        times.compute_output.add(1, output_s)

    def failed(self, requests: int, seconds: float) -> None:
        """Take calls whose execution failed, and how long they were here in all."""
        self.fail.add(requests, seconds)

    def refuse(self, reason: str, requests: int) -> None:
        """Take calls that were not executed, by the reason of the error."""
        self.refused[reason] = self.refused.get(reason, 0) + requests
