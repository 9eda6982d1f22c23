"""A scheduler in virtual time: executors that end when told, a session that is a function, answers that are lists."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.batching.policy import Limits
from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.errors import ModelFailed
from shardline.core.models import Batching, ModelSpec, TensorSpec, default_buckets
from shardline.replica import answers, batch, scheduler
from shardline.replica.chunk import NO_DEADLINE, Chunk, Head, InputHead
from shardline.replica.queue import BatchQueue
from shardline.replica.scheduler import Scheduler
from shardline.replica.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest

    from shardline.core.errors import ServingError
    from shardline.replica.batch import Batch, Outcome
    from shardline.replica.runtime import Run

ADDED = 1000.0
"""What the model of these tests adds to its input."""
POISON = -1.0
"""A value in whose presence the model fails."""
X = InputHead("x", BY_NAME["FP32"], (2,), 8)
HEAD = Head(PoolKey("m", 1), (X,), (), None)
OTHER_SHAPE = Head(PoolKey("m", 1), (InputHead("x", BY_NAME["FP32"], (3,), 12),), (), None)
LARGE = Head(PoolKey("m", 1), (InputHead("x", BY_NAME["FP32"], (4096,), 16384),), (), None)


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualLoop:
    """As much of an event loop as the scheduler uses; also stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *arguments: object) -> Timer:
        self.timers.append(Timer(self.now + delay, partial(call, *arguments)))
        return self.timers[-1]

    def call_soon(self, call: Callable[..., None], *arguments: object) -> None:
        call(*arguments)

    call_soon_threadsafe = call_soon

    def advance(self, seconds: float) -> None:
        """Let time pass; timers run when they are due."""
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= until and not timer.cancelled]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = max(self.now, first.at)
            first.call()
        self.now = until


class VirtualExecutor:
    """Stands in for an executor's thread: what it was given runs when the test says so."""

    def __init__(self, _loop: object, ended: Callable[[Any, Batch], None]) -> None:
        self._ended = ended
        self.batch: Batch | None = None

    def put(self, taken: Batch) -> None:
        assert self.batch is None
        self.batch = taken

    def finish(self) -> Batch:
        """Run the batch that was given, and say so."""
        taken, self.batch = self.batch, None
        assert taken is not None
        taken.execute()
        self._ended(self, taken)
        return taken

    def close(self) -> None:
        pass


@dataclass
class FunctionSession:
    """y = x + ADDED, row by row. cost_s: how long a run takes, by rows. runs: the feeds of every run."""

    loop: VirtualLoop
    cost_s: Callable[[int], float] = lambda _rows: 0.0
    runs: list[np.ndarray] = field(default_factory=list)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], run: Run | None = None) -> list[np.ndarray]:
        x = feeds["x"].copy()
        self.runs.append(x)
        self.loop.now += self.cost_s(len(x))
        if run is not None and run.terminated:
            raise ModelFailed("model failed: terminated")
        if (x == POISON).any():
            raise ModelFailed("model failed: poisoned")
        return [{"y": x + np.float32(ADDED), "sum": x.sum(axis=1)}[name] for name in outputs]


class Collected:
    """Answers that remember what each call got; fails the test where a call gets two."""

    def __init__(self) -> None:
        self.rows: dict[tuple[bytes, int], np.ndarray] = {}
        self.errors: dict[tuple[bytes, int], ServingError] = {}
        self.batches: list[tuple[int, int]] = []
        self.flushes = 0

    def _once(self, key: tuple[bytes, int]) -> None:
        assert key not in self.rows
        assert key not in self.errors

    def results(self, taken: Batch, outcome: Outcome) -> None:
        self.batches.append((taken.rows, taken.bucket))
        at = 0
        for chunk in outcome.chunks:
            for call, rows in zip(chunk.calls, chunk.rows, strict=True):
                self._once((chunk.peer, call))
                output = outcome.outputs[0]
                self.rows[chunk.peer, call] = output[at : at + rows] if taken.served.spec.batched else output
                at += rows

    def refuse(self, chunk: Chunk, calls: Sequence[int], error: ServingError) -> None:
        for call in calls:
            self._once((chunk.peer, call))
            self.errors[chunk.peer, call] = error

    def flush(self) -> None:
        self.flushes += 1

    def values(self, call: int, peer: bytes = b"e") -> list[float]:
        """First value of each row that the call sent, by its answer."""
        return [float(value) - ADDED for value in self.rows[peer, call].reshape(len(self.rows[peer, call]), -1)[:, 0]]


class Bench:
    """A scheduler with its surroundings. Use `with monkeypatch.context()` where several are needed."""

    def __init__(self, patch: pytest.MonkeyPatch, executors: int = 1, *, prefetch: bool = True) -> None:
        self.loop = VirtualLoop()
        patch.setattr(asyncio, "get_running_loop", lambda: self.loop)
        patch.setattr(scheduler, "_Executor", VirtualExecutor)
        for module in (scheduler, batch, answers):
            patch.setattr(module, "time", self.loop)
        self.answers = Collected()
        self.scheduler = Scheduler(self.answers, executors, prefetch=prefetch)
        self.executors: list[VirtualExecutor] = list(self.scheduler._executors)  # type: ignore[arg-type]
        self.calls = 0

    def serve(
        self,
        *,
        max_rows: int = 8,
        delay_s: float = 0.0,
        cost_s: Callable[[int], float] | None = None,
        because: str = "",
        **batching: Any,
    ) -> Served:
        return served(
            self.loop, max_rows=max_rows, delay_s=delay_s, cost_s=cost_s or (lambda _rows: 0.0), because=because,
            **batching,
        )  # fmt: skip

    def submit(self, target: Served, *calls: Sequence[float], **fields: Any) -> list[int]:
        """Queue a chunk of one call per list of row values; returns their numbers."""
        made = chunk(*calls, first=self.calls, arrived=self.loop.now, **fields)
        self.calls += len(calls)
        self.scheduler.submit(target, made)
        return list(made.calls)

    def send(self, target: Served, *calls: Sequence[float], **fields: Any) -> list[int]:
        """As a message that arrives: submit, then pump."""
        numbers = self.submit(target, *calls, **fields)
        self.scheduler.pump()
        return numbers

    def running(self) -> list[Batch]:
        return [executor.batch for executor in self.executors if executor.batch is not None]

    def finish(self) -> Batch:
        """End the batch of the executor that has had one for longest (the first with one)."""
        return next(executor for executor in self.executors if executor.batch is not None).finish()

    def finish_all(self) -> None:
        while self.running():
            self.finish()


def spec(max_rows: int = 8, outputs: Sequence[str] = ("y",), **batching: Any) -> ModelSpec:
    """x FP32 [batch, 2] to y of the same shape, or to its sum."""
    fp32 = BY_NAME["FP32"]
    rules = Batching(**{"max_rows": max_rows, "buckets": default_buckets(max_rows), **batching})
    kinds = {"y": TensorSpec("y", fp32, (2,)), "sum": TensorSpec("sum", fp32, ())}
    return ModelSpec(
        "m", 1, "onnx", (TensorSpec("x", fp32, (-1,)),), tuple(kinds[name] for name in outputs), rules, b"", ""
    )


def served(
    loop: VirtualLoop,
    *,
    max_rows: int = 8,
    delay_s: float = 0.0,
    cost_s: Callable[[int], float] = lambda _rows: 0.0,
    because: str = "",
    **batching: Any,
) -> Served:
    made = spec(max_rows, **batching)
    session: Any = FunctionSession(loop, cost_s)
    alone = bool(because) or not max_rows
    limits = Limits(1 if alone else max_rows, delay_s)
    buckets = (1,) if alone else made.batching.buckets
    return Served(
        pool=PoolKey("m", 1),
        spec=made,
        session=session,
        queue=BatchQueue(made.batching.queue_rows),
        buckets=buckets,
        limits=limits,
        unbatched_because=because,
    )


def chunk(
    *calls: Sequence[float],
    head: Head = HEAD,
    peer: bytes = b"e",
    first: int = 0,
    arrived: float = 0.0,
    deadlines: Sequence[float] | None = None,
    priority: int = 0,
) -> Chunk:
    """One call per list of values, each value a row that is filled with it."""
    values = np.array([value for call in calls for value in call], np.float32)
    array = np.repeat(values[:, None], head.inputs[0].dims[0], axis=1)
    return Chunk(
        head,
        peer,
        list(range(first, first + len(calls))),
        [len(call) for call in calls],
        len(values),
        (array,),
        deadlines,
        NO_DEADLINE if deadlines is None else min(deadlines),
        arrived,
        priority,
    )


def values_of(taken: Sequence[Chunk]) -> list[float]:
    """First value of every row, in order."""
    return [float(value) for part in taken for value in part.arrays[0][:, 0]]
