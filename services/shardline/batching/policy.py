"""When to dispatch a batch, and of how many rows: `decide(queue, now, limits) -> Take | WaitUntil`.

Greedy (take what is there as soon as the device is free) is the default: with one executor and open-loop arrivals
no wait helps, at any load (FIELD: formulas). Two cases wait:

* a configured delay (Triton's max_queue_delay_microseconds), until the preferred size or the delay is reached;
* the closed-loop guard: when few callers each wait for their answer, greedy batches collapse to {1, N-1}: the rows
  just answered come back within a short spread, so a wait of about that spread keeps them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


_MESSAGE_S = 0.0005
"""What a batch costs besides its run: messages, queues, receipts (measured; docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """One shape key's queue. rows waiting; arrival of the oldest row and earliest deadline, on one clock, in seconds."""

    rows: int
    oldest_at: float
    earliest_deadline: float = float("inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model allows.

    max_rows: largest batch. delay_s: how long the oldest row may wait for company. preferred_rows: dispatch at once
    from this size on (0: max_rows). predicted_s: predicted run time of the largest batch, kept free before a deadline.
    """

    max_rows: int
    delay_s: float = 0.0
    preferred_rows: int = 0
    predicted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Returning:
    """The rows whose callers were just answered and, in a closed loop, are about to call again.

    rows: answered by the last batch. answered_at: when. spread_s: how long such rows took to come back lately;
    0 where they do not come back (open loop), which switches the guard off.
    """

    rows: int = 0
    answered_at: float = 0.0
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Take:
    """Dispatch a batch of up to `rows` rows now."""

    rows: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Ask again at `at`, or when more rows arrive."""

    at: float


def decide(queue: QueueView, now: float, limits: Limits, returning: Returning | None = None) -> Take | WaitUntil:
    """Dispatch now, or wait until when. The queue holds at least one row; times are on one clock, in seconds."""
    take = Take(min(queue.rows, limits.max_rows))
    enough = limits.preferred_rows or limits.max_rows
    if queue.rows >= min(enough, limits.max_rows):
        return take
    until = max(_delay_ends(queue, limits), _guard_ends(queue, returning))
    latest = queue.earliest_deadline - limits.predicted_s
    return take if min(until, latest) <= now else WaitUntil(min(until, latest))


def _delay_ends(queue: QueueView, limits: Limits) -> float:
    return queue.oldest_at + limits.delay_s if limits.delay_s > 0 else 0.0


def _guard_ends(queue: QueueView, returning: Returning | None) -> float:
    if returning is None or returning.spread_s <= 0 or queue.rows >= returning.rows:
        return 0.0
    return returning.answered_at + returning.spread_s


def bucket_for(rows: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `rows`; `rows` itself where none does.

    >>> bucket_for(3, (1, 2, 4, 8))
    4
    """
    for bucket in buckets:
        if bucket >= rows:
            return bucket
    return rows


def worthwhile_rows(rows: int, alpha_s: float, beta_s: float, buckets: Sequence[int]) -> int:
    """How many of `rows` that wait to take now: all, padded to the next bucket, or the bucket before without padding.

    Whichever gives more rows per second: padding costs beta * (bucket - rows), a batch more costs alpha and its messages.

    >>> worthwhile_rows(9, 0.002, 0.005, (1, 2, 4, 8, 16)), worthwhile_rows(9, 0.100, 0.001, (1, 2, 4, 8, 16))
    (8, 9)
    """
    fixed_s = alpha_s + _MESSAGE_S
    padded = bucket_for(rows, buckets)
    fitting = max((bucket for bucket in buckets if bucket <= rows), default=rows)
    if padded == rows or fitting * (fixed_s + beta_s * padded) <= rows * (fixed_s + beta_s * fitting):
        return rows
    return fitting


def row_ranges(rows: int, largest: int) -> list[tuple[int, int]]:
    """Cut a request of `rows` into ranges [start, end) of at most `largest` rows, as even as whole rows allow.

    >>> row_ranges(10, 4)
    [(0, 4), (4, 7), (7, 10)]
    """
    parts = -(-rows // largest)
    small, extra = divmod(rows, parts)
    ranges, start = [], 0
    for index in range(parts):
        end = start + small + (1 if index < extra else 0)
        ranges.append((start, end))
        start = end
    return ranges


def micro_batch_rows(rows: int, stages: int, alpha_s: float, beta_s: float, buckets: Sequence[int]) -> int:
    """Rows of the micro-batches that a request of `rows` is cut into, so that it fills a pipeline of `stages`.

    The bucket b with the least (ceil(rows / b) + S - 1) * (alpha + beta * b): the time until the last of M micro-batches
    leaves the last stage. alpha, beta: of the slowest stage; before they are known, about 2 S micro-batches.
    """
    if alpha_s <= 0 and beta_s <= 0:
        return bucket_for(-(-rows // (2 * stages)), buckets[:-1] or buckets)
    fixed_s = alpha_s + _MESSAGE_S
    return min(buckets, key=lambda size: (-(-rows // size) + stages - 1) * (fixed_s + beta_s * size))


_PIPELINE_SLACK = 1.1
"""Rows in flight beyond one micro-batch per stage, as a share: what is between two stages keeps none of them busy."""


def pipeline_rows(in_flight: int, stages: int, alpha_s: float, beta_s: float, buckets: Sequence[int]) -> int:
    """The largest batch of a stage while `in_flight` rows are anywhere in a pipeline of `stages`.

    A stage that takes all rows that wait leaves nothing for the others: they run in turns, at the rate of the whole model.
    The bucket b with the highest rate, b / (alpha + beta * b) for the share of time that N rows keep S stages busy with
    batches of b, N / (S * b) at most 1. alpha, beta: of this stage; before they are known, about one micro-batch a stage.

    >>> pipeline_rows(16, 2, 0.002, 0.005, (1, 2, 4, 8, 16))
    4
    """
    if alpha_s <= 0 and beta_s <= 0:
        return bucket_for(-(-in_flight // stages), buckets)
    fixed_s = alpha_s + _MESSAGE_S

    def rate(size: int) -> float:
        busy = min(1.0, in_flight / (_PIPELINE_SLACK * stages * size))
        return busy * size / (fixed_s + beta_s * size)

    return max(buckets, key=rate)
