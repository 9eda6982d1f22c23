"""Which batch runs next, and on what thread.

The event loop owns queues and decides (batching.policy); executor threads only join arrays and run sessions. A batch that
is predicted to be shorter than the hand-over to a thread and back runs on the event loop itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from shardline.batching.policy import Take, bucket_for, decide
from shardline.core.errors import Cancelled, DeadlineExceeded, Exhausted, ServingError
from shardline.replica.batch import Batch, Outcome, unexpected
from shardline.replica.runtime import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardline.replica.chunk import Chunk, ShapeKey
    from shardline.replica.served import Served

INLINE_BELOW_S = 300e-6
"""Predicted batch times below this run on the event loop: a hand-over to a thread and back costs about as much."""


class Answers(Protocol):
    """Where outcomes go."""

    def results(self, batch: Batch, outcome: Outcome) -> None:
        """Outputs of a batch's chunks, to scatter to their callers."""

    def refuse(self, chunk: Chunk, calls: Sequence[int], error: ServingError) -> None:
        """Calls that were not executed, or failed."""

    def flush(self) -> None:
        """Everything of this turn was said."""


class Scheduler:
    """Takes chunks, forms batches, runs them, hands out the outcomes. Use within a running event loop."""

    def __init__(self, answers: Answers, executors: int = 1, *, prefetch: bool = True) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._idle = [_Executor(self._loop, self._ended) for _ in range(executors)]
        self._executors = tuple(self._idle)
        self._running: set[int] = set()
        self._batches: dict[int, Batch] = {}
        self._waiting: dict[int, Served] = {}
        self._prefetch = prefetch
        self._wake: asyncio.TimerHandle | None = None
        self._pumping = False

    def submit(self, served: Served, chunk: Chunk) -> None:
        """Queue a chunk, or refuse it; `pump` is called once after a burst of them."""
        if not served.queue.has_room(chunk.total):
            retry = max(0.001, served.fit.predict_s(served.queue.rows))
            error = Exhausted(
                f"model '{served.spec.name}': queue is full ({served.queue.rows} of {served.spec.batching.queue_rows} rows); "
                f"retry in {retry:.3f} s",
                retry_after_s=retry,
            )
            served.counters.observe_failure(error.reason, 0.0, len(chunk.calls))
            self._answers.refuse(chunk, chunk.calls, error)
            return
        if served.waits:
            served.returns.arrived(chunk.total, chunk.arrived)
        key = served.key_of(chunk.head)
        if self._prefetch and not self._idle and served.shares_batches and not served.spec.batching.pad_inputs:
            served.prefetch.stage(key, chunk)
        served.queue.put(key, chunk)
        self._waiting[id(served)] = served

    def express(self, served: Served, chunk: Chunk) -> bool:
        """Run a chunk at once, where nothing waits and the batch is shorter than queueing it; False where it must queue."""
        if self._waiting or len(self._idle) < len(self._executors) or chunk.dropped or served.waits:
            return False
        if not served.shares_batches or chunk.total > served.buckets[-1] or chunk.earliest <= chunk.arrived:
            return False
        bucket = bucket_for(chunk.total, served.buckets)
        if not 0 < served.fit.predict_s(bucket) < INLINE_BELOW_S:
            return False
        names = chunk.head.outputs or served.output_names
        batch = Batch(served, [chunk], chunk.total, bucket, names, chunk.arrived)
        served.running_rows += chunk.total
        batch.execute()
        self._left(batch)
        self._finish(batch)
        self._answers.flush()
        return True

    def cancel(self, peer: bytes, calls: set[int]) -> None:
        """Nobody waits for these calls of `peer` any more."""
        for served in self._waiting.values():
            calls = calls - served.queue.cancel(peer, calls)
        if calls:
            for batch in self._batches.values():
                batch.drop(peer, calls)

    def pump(self) -> None:
        """Dispatch while an executor is idle and the policy wants a batch. Not re-entered."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._idle and self._waiting and self._dispatch_one():
                pass
        finally:
            self._pumping = False
        self._answers.flush()

    def _dispatch_one(self) -> bool:
        now = time.monotonic()
        wake = float("inf")
        for served in self._by_age():
            key = served.queue.next_key()
            if key is None:
                del self._waiting[id(served)]
                continue
            returning = served.returns.returning(served.queue.rows, served.fit.alpha_s) if served.waits else None
            decision = decide(served.queue.view(key), now, served.limits_at(now), returning)
            if isinstance(decision, Take):
                self._start(served, key, served.worthwhile(decision.rows), now)
                return True
            wake = min(wake, decision.at)
        self._wake_at(wake)
        return False

    def _by_age(self) -> Sequence[Served]:
        if len(self._waiting) == 1:
            return tuple(self._waiting.values())
        return sorted(self._waiting.values(), key=lambda served: served.queue.oldest_at())

    def _wake_at(self, at: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if at < float("inf"):
            self._wake = self._loop.call_later(max(0.0, at - time.monotonic()), self.pump)

    def _start(self, served: Served, key: ShapeKey, rows: int, now: float) -> None:
        taken = served.queue.take(key, rows, now)
        if served.queue.rows == 0:
            self._waiting.pop(id(served), None)
        for chunk, late in taken.expired:
            served.counters.observe_dropped(DeadlineExceeded.reason, chunk.rows_of(late))
            self._answers.refuse(chunk, late, _late(served, chunk, now))
        if taken.cancelled_rows:
            served.counters.observe_dropped(Cancelled.reason, taken.cancelled_rows)
        if not taken.chunks:
            return
        bucket = bucket_for(taken.rows, served.buckets) if served.spec.batched else 1
        batch = Batch(
            served,
            taken.chunks,
            taken.rows,
            bucket,
            _wanted(served, taken.chunks),
            now,
            served.prefetch.take(taken.chunks, bucket) if served.shares_batches else None,
        )
        served.running_rows += taken.rows
        predicted = served.fit.predict_s(bucket)
        served.busy_until = now + predicted
        if 0 < predicted < INLINE_BELOW_S and len(self._idle) == len(self._executors):
            batch.execute()
            self._left(batch)
            self._finish(batch)
        else:
            batch.run = Run()
            self._batches[id(batch)] = batch
            self._idle.pop().put(batch)

    def _ended(self, executor: _Executor, batch: Batch) -> None:
        self._idle.append(executor)
        del self._batches[id(batch)]
        self._left(batch)
        if self._waiting:
            self._dispatch_one()  # the executor runs it while this thread hands out what the last batch gave
        self._finish(batch)
        self.pump()

    def _left(self, batch: Batch) -> None:
        """The batch is not on the device any more."""
        served = batch.served
        served.running_rows -= batch.rows
        if served.waits:
            served.returns.answered(batch.rows, time.monotonic())

    def _finish(self, batch: Batch) -> None:
        """Hand out what became of the batch."""
        served = batch.served
        started = time.monotonic()
        if batch.terminated:
            served.counters.observe_dropped(Cancelled.reason, batch.rows)
            return
        batch.outcomes = [self._tell(batch, outcome) for outcome in batch.outcomes]
        self._count(batch, time.monotonic() - started)

    def _tell(self, batch: Batch, outcome: Outcome) -> Outcome:
        """Hand out an outcome; what cannot be told has failed. Whatever happens, the next batch must run."""
        if outcome.error is None:
            try:
                self._answers.results(batch, outcome)
            except Exception as error:  # noqa: BLE001  the models' outputs are not ours
                outcome = Outcome(outcome.chunks, (), unexpected("its outputs cannot be sent", error))
            else:
                return outcome
        self._fail(batch, outcome)
        return outcome

    def _fail(self, batch: Batch, outcome: Outcome) -> None:
        assert outcome.error is not None
        for chunk in outcome.chunks:
            batch.served.counters.observe_failure(
                outcome.error.reason, len(chunk.calls) * (time.monotonic() - chunk.arrived), len(chunk.calls)
            )
            self._answers.refuse(chunk, chunk.calls, outcome.error)

    def _count(self, batch: Batch, output_s: float) -> None:
        good = [chunk for outcome in batch.outcomes if outcome.error is None for chunk in outcome.chunks]
        if not good:
            return
        if len(batch.outcomes) == 1:
            batch.served.fit.observe(batch.bucket, batch.input_s + batch.compute_s)
        waits: list[float] = []
        for chunk in good:
            waits += [batch.taken_at - chunk.arrived] * len(chunk.calls)
        batch.served.counters.observe_batch(
            sum(chunk.total for chunk in good), batch.bucket, waits, batch.input_s, batch.compute_s, output_s
        )

    def close(self) -> None:
        """End the executor threads after what they run now."""
        if self._wake is not None:
            self._wake.cancel()
        for executor in self._executors:
            executor.close()


def _wanted(served: Served, chunks: Sequence[Chunk]) -> tuple[str, ...]:
    """The outputs that some caller wants, in the model's order."""
    first = chunks[0].head.outputs
    if all(chunk.head.outputs == first for chunk in chunks):
        return first or served.output_names
    if any(not chunk.head.outputs for chunk in chunks):
        return served.output_names
    wanted = {name for chunk in chunks for name in chunk.head.outputs}
    return tuple(name for name in served.output_names if name in wanted)


def _late(served: Served, chunk: Chunk, now: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"deadline passed after {(now - chunk.arrived) * 1e3:.1f} ms in the batching queue of "
        f"'{served.spec.name}' (not executed)"
    )


class _Executor:
    """A thread that runs one batch at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[_Executor, Batch], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="executor", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        self._batches.put(batch)

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            batch.execute()
            self._loop.call_soon_threadsafe(self._ended, self, batch)
            del batch  # a thread that waits must not keep the session of a version that is unloaded meanwhile

    def close(self) -> None:
        self._batches.put(None)
        self._thread.join(timeout=5)
