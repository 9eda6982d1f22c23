"""A model version in service on this replica: its session, its queue, its latency, its counters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shardline.batching.in_flight import InFlight
from shardline.batching.latency import LatencyFit
from shardline.batching.policy import pipeline_rows, worthwhile_rows
from shardline.batching.returning import ReturnTracker
from shardline.core.cluster import LoadReport, PoolKey
from shardline.ops.metrics import BatchCounters
from shardline.replica.assemble import Prefetch, join, join_unbatched, shape_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from shardline.batching.policy import Limits
    from shardline.core.datatypes import DataType
    from shardline.core.models import ModelSpec
    from shardline.replica.chunk import Chunk, Head, ShapeKey
    from shardline.replica.join import Joins
    from shardline.replica.queue import BatchQueue
    from shardline.replica.runtime import Session
    from shardline.replica.stage import StageRole


_WAIT_FROM_ALPHA_S = 0.001
"""Fixed cost of a batch below which no wait for returning callers pays: timers and wake-ups take some of it."""


@dataclass(slots=True)
class Served:
    """One pool membership.

    buckets: batch sizes that the session is warm for, ascending; (1,) where rows are not batched.
    unbatched_because: why not, "" where they are. stage, joins: set where the session is one stage of a split model;
    joins is None, too, where one sender has all of the stage's inputs.
    running_rows: in batches that run now. busy_until: when the running batch is expected to end, monotonic seconds.
    draining: routers are no longer told of it, and its last rows end.
    """

    pool: PoolKey
    spec: ModelSpec
    session: Session
    queue: BatchQueue
    buckets: tuple[int, ...]
    limits: Limits
    unbatched_because: str = ""
    stage: StageRole | None = None
    joins: Joins | None = None
    prefetch: Prefetch = field(init=False)
    fit: LatencyFit = field(default_factory=LatencyFit)
    counters: BatchCounters = field(default_factory=BatchCounters)
    returns: ReturnTracker = field(default_factory=ReturnTracker)
    in_flight: InFlight = field(default_factory=InFlight)
    running_rows: int = 0
    busy_until: float = 0.0
    draining: bool = False

    def __post_init__(self) -> None:
        self.prefetch = Prefetch(self.buckets[-1] if self.shares_batches else 0)

    @property
    def waits(self) -> bool:
        """Whether a batch may be worth waiting for: its fixed cost is more than that of waking up, or a delay is set.

        Never for the callers of a stage: they come back after all other stages, and those would stand still meanwhile.
        """
        if self.limits.delay_s > 0:
            return True
        return self.stage is None and self.shares_batches and self.fit.alpha_s > _WAIT_FROM_ALPHA_S

    def worthwhile(self, rows: int) -> int:
        """How many of `rows` that may run together to run together."""
        return worthwhile_rows(rows, self.fit.alpha_s, self.fit.beta_s, self.buckets) if self.shares_batches else rows

    def limits_at(self, now: float) -> Limits:
        """What the policy may take: of a stage, not so much that the other stages have nothing to do meanwhile."""
        if self.stage is None or not self.shares_batches:
            return self.limits
        if self.stage.micro_batch_rows:
            rows = self.stage.micro_batch_rows
        elif in_flight := self.in_flight.rows(now):
            rows = pipeline_rows(in_flight, len(self.stage.graph), self.fit.alpha_s, self.fit.beta_s, self.buckets)
        else:
            return self.limits
        return replace(self.limits, max_rows=min(rows, self.limits.max_rows))

    @property
    def shares_batches(self) -> bool:
        """Whether rows of different calls may run together."""
        return self.spec.batched and not self.unbatched_because

    @property
    def idle(self) -> bool:
        """Whether no row waits or runs."""
        return self.queue.rows == 0 and self.running_rows == 0

    @property
    def output_names(self) -> tuple[str, ...]:
        """Outputs of the stage, in the model's order."""
        return tuple(output.name for output in self.spec.outputs)

    def output_type(self, name: str) -> DataType:
        """Data type of an output."""
        return next(output.datatype for output in self.spec.outputs if output.name == name)

    def key_of(self, head: Head) -> ShapeKey:
        """The shape key of a head."""
        return shape_key(head, self.spec.batching)

    def join(self, chunks: Sequence[Chunk], bucket: int) -> dict[str, np.ndarray]:
        """The arrays of a batch."""
        if not self.spec.batched:
            return join_unbatched(chunks)
        return join(chunks, bucket, self.spec.batching)

    def load(self, now: float, sequence: int) -> LoadReport:
        """What a router wants to know before it chooses; `now` on the monotonic clock."""
        return LoadReport(
            queue_rows=self.queue.rows,
            running_rows=self.running_rows,
            busy_ms=max(0.0, self.busy_until - now) * 1e3 if self.running_rows else 0.0,
            alpha_ms=self.fit.alpha_s * 1e3,
            beta_ms=self.fit.beta_s * 1e3,
            sequence=sequence,
        )
