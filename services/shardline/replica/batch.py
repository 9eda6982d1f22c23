"""A batch on its way through the executor: joined, run, and taken apart again if it fails."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.batching.policy import bucket_for
from shardline.core.errors import ModelFailed
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from shardline.replica.chunk import Chunk
    from shardline.replica.runtime import Run
    from shardline.replica.served import Served

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some of a batch's chunks: outputs [bucket, *dims] in the batch's order of names, or why not."""

    chunks: Sequence[Chunk]
    outputs: Sequence[np.ndarray]
    error: ModelFailed | None = None


@dataclass(slots=True)
class Batch:
    """Chunks that run together. Times are on the monotonic clock, in seconds.

    names: outputs that are computed. feeds: set where the rows were prefetched. run: set where the run can be ended.
    dropped: (peer, call) nobody wants any more.
    """

    served: Served
    chunks: list[Chunk]
    rows: int
    bucket: int
    names: tuple[str, ...]
    taken_at: float
    feeds: dict[str, np.ndarray] | None = None
    run: Run | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    input_s: float = 0.0
    compute_s: float = 0.0
    dropped: set[tuple[bytes, int]] = field(default_factory=set)

    @property
    def calls(self) -> int:
        """Number of calls in the batch."""
        return sum(len(chunk.calls) for chunk in self.chunks)

    def drop(self, peer: bytes, calls: set[int]) -> None:
        """Nobody waits for these calls; a run that nobody waits for is ended."""
        for chunk in self.chunks:
            if chunk.peer == peer:
                self.dropped.update((peer, call) for call in calls.intersection(chunk.calls))
        if self.run is not None and self.dropped and len(self.dropped) == self.calls:
            self.run.terminate()

    @property
    def terminated(self) -> bool:
        """Whether the run was ended because nobody wanted it."""
        return self.run is not None and self.run.terminated

    def execute(self) -> None:
        """Join, run, and leave the outcomes; never raises. Runs in the executor's thread."""
        started = time.monotonic()
        try:
            feeds = self.feeds if self.feeds is not None else self._join(self.chunks, self.bucket)
            self.input_s = time.monotonic() - started
            self.outcomes.append(Outcome(self.chunks, self._run(feeds)))
        except ModelFailed as error:
            self._isolate(self.chunks, error)
        self.compute_s = time.monotonic() - started - self.input_s

    def _join(self, chunks: Sequence[Chunk], bucket: int) -> dict[str, np.ndarray]:
        try:
            return self.served.join(chunks, bucket)
        except Exception as error:  # a thread that dies takes all models of the replica along
            raise unexpected("its input cannot be joined", error) from error

    def _run(self, feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        try:
            outputs = self.served.session.run(feeds, self.names, self.run)
        except ModelFailed:
            raise
        except Exception as error:
            raise unexpected("its run ended in an error", error) from error
        if self.served.spec.batched and feeds:
            _check_rows(self.names, outputs, len(next(iter(feeds.values()))))
        return outputs

    def _isolate(self, chunks: list[Chunk], error: ModelFailed) -> None:
        """A batch failed: run its halves apart, until only the calls that fail by themselves are left.

        One caller's values must not fail its neighbours (promise P4); log2(calls) extra runs for one bad call.
        """
        halves = None if self.terminated else _halve(chunks)
        if halves is None:
            # Made anew: the raised one knows the frames that it came through, they this batch, and the batch its tensors.
            self.outcomes.append(Outcome(chunks, (), ModelFailed(error.message)))
            return
        for half in halves:
            rows = sum(chunk.total for chunk in half)
            try:
                feeds = self._join(half, bucket_for(rows, self.served.buckets))
                self.outcomes.append(Outcome(half, self._run(feeds)))
            except ModelFailed as failed:
                self._isolate(half, failed)


def _check_rows(names: Sequence[str], outputs: Sequence[np.ndarray], rows: int) -> None:
    """An output that does not follow the batch axis cannot be cut into its callers' rows. Raises ModelFailed."""
    for name, output in zip(names, outputs, strict=True):
        if output.ndim == 0 or len(output) != rows:
            raise ModelFailed(
                f"model failed: output '{name}' has shape {list(output.shape)} for {rows} rows; "
                "its first axis must be the batch axis (max_batch_size 0 is for models that have none)"
            )


def unexpected(what: str, error: Exception) -> ModelFailed:
    """An error that no model should cause: the callers get its kind, the log gets the traceback."""
    log.error("batch.unexpected", exc_info=error)
    return ModelFailed(f"model failed: {what}: {type(error).__name__} (see the replica's log)")


def _halve(chunks: list[Chunk]) -> tuple[list[Chunk], list[Chunk]] | None:
    if len(chunks) > 1:
        middle = len(chunks) // 2
        return chunks[:middle], chunks[middle:]
    calls = len(chunks[0].calls)
    if calls < 2:
        return None
    return [chunks[0].part(0, calls // 2)], [chunks[0].part(calls // 2, calls)]
