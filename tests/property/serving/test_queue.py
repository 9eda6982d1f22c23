"""Whatever is queued, split, cancelled or late: each caller gets exactly its own rows, and no row is lost or doubled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shardline.batching.latency import LatencyFit
from shardline.batching.policy import Limits, QueueView, Take, WaitUntil, bucket_for, decide, row_ranges
from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.models import Batching, default_buckets
from shardline.replica.assemble import join, shape_key
from shardline.replica.chunk import NO_DEADLINE, Chunk, Head, InputHead
from shardline.replica.queue import BatchQueue
from shardline.router.policy import RetryBudget

MAX_ROWS = 8
BATCHING = Batching(max_rows=MAX_ROWS, buckets=default_buckets(MAX_ROWS))
HEADS = [Head(PoolKey("m", 1), (InputHead("x", BY_NAME["FP32"], (width,), 4 * width),), (), None) for width in (1, 2)]


@dataclass(frozen=True)
class Call:
    """One call of a chunk. late: its deadline has passed when batches are taken."""

    rows: int
    late: bool
    cancelled: bool


CALLS = st.builds(Call, st.integers(1, MAX_ROWS), st.booleans() | st.just(False), st.booleans() | st.just(False))
CHUNKS = st.lists(
    st.tuples(st.lists(CALLS, min_size=1, max_size=6), st.sampled_from(HEADS), st.integers(1, 3), st.booleans()),
    max_size=8,
)


def chunk_of(calls: list[Call], first: int, head: Head, priority: int, peer: bytes) -> Chunk:
    """A chunk whose every value is the number of the call it belongs to."""
    total = sum(call.rows for call in calls)
    numbers = np.repeat(np.arange(first, first + len(calls), dtype=np.float32), [call.rows for call in calls])
    array = np.repeat(numbers[:, None], head.inputs[0].dims[0], axis=1)
    deadlines = [0.0 if call.late else NO_DEADLINE for call in calls]
    return Chunk(
        head,
        peer,
        list(range(first, first + len(calls))),
        [call.rows for call in calls],
        total,
        (array,),
        deadlines,
        min(deadlines),
        float(first),
        priority,
    )


@given(CHUNKS, st.integers(1, MAX_ROWS))
def test_every_wanted_call_is_taken_once_with_its_own_rows(
    plan: list[tuple[list[Call], Head, int, bool]], most: int
) -> None:
    queue = BatchQueue(10_000)
    wanted: dict[int, Call] = {}
    late, cancelled = set(), set()
    first = 0
    for calls, head, priority, other in plan:
        peer = b"b" if other else b"a"
        queue.put(shape_key(head, BATCHING), chunk_of(calls, first, head, priority, peer))
        for number, call in enumerate(calls, first):
            if call.cancelled:
                cancelled.add(number)
                assert queue.cancel(peer, {number}) == {number}
                assert queue.cancel(b"c", {number}) == set()
            elif call.late:
                late.add(number)
            else:
                wanted[number] = call
        first += len(calls)
    got: dict[int, int] = {}
    expired: list[int] = []
    while (key := queue.next_key()) is not None:
        taken = queue.take(key, most, now=1.0)
        for _, numbers in taken.expired:
            expired += numbers
        if not taken.chunks:
            continue
        assert taken.rows == sum(chunk.total for chunk in taken.chunks)
        assert taken.rows <= most or sum(len(chunk.calls) for chunk in taken.chunks) == 1
        feeds = join(taken.chunks, bucket_for(taken.rows, BATCHING.buckets), BATCHING)["x"]
        at = 0
        for chunk in taken.chunks:
            for number, rows in zip(chunk.calls, chunk.rows, strict=True):
                assert number not in got
                assert (feeds[at : at + rows] == number).all()
                got[number] = rows
                at += rows
    assert queue.rows == 0
    assert got == {number: call.rows for number, call in wanted.items()}
    assert sorted(expired) == sorted(late)


@given(st.integers(1, 5000), st.integers(1, 300))
def test_row_ranges_cover_all_rows_in_order_and_are_even(rows: int, largest: int) -> None:
    ranges = row_ranges(rows, largest)
    assert [row for start, end in ranges for row in range(start, end)] == list(range(rows))
    sizes = [end - start for start, end in ranges]
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
    assert len(ranges) == -(-rows // largest)


TIMES = st.floats(0, 1000)


@given(
    st.builds(QueueView, st.integers(1, 100), TIMES, TIMES | st.just(float("inf"))),
    TIMES,
    st.builds(Limits, st.integers(1, 64), st.floats(0, 5), st.integers(0, 64), st.floats(0, 5)),
)
def test_the_policy_never_takes_too_much_and_never_waits_without_end(
    queue: QueueView, now: float, limits: Limits
) -> None:
    decision = decide(queue, now, limits)
    if isinstance(decision, Take):
        assert 1 <= decision.rows <= min(queue.rows, limits.max_rows)
        return
    assert isinstance(decision, WaitUntil)
    assert now < decision.at <= queue.oldest_at + limits.delay_s
    assert isinstance(decide(queue, decision.at, limits), Take)


@given(st.floats(1e-5, 0.1), st.floats(1e-6, 0.01), st.lists(st.sampled_from([1, 2, 4, 8, 16]), min_size=1))
def test_the_latency_fit_finds_the_line_it_is_shown(alpha: float, beta: float, sizes: list[int]) -> None:
    fit = LatencyFit()
    for rows in (1, 16, *sizes):
        fit.observe(rows, alpha + beta * rows)
        assert fit.alpha_s >= 0
        assert fit.beta_s >= 0
    for rows in (1, 8, 16):
        assert abs(fit.predict_s(rows) - alpha - beta * rows) <= 0.02 * (alpha + beta * rows)


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=2000))
def test_retries_are_bounded_by_the_share_of_requests(ratio: float, steps: list[bool]) -> None:
    budget = RetryBudget(ratio, burst=10)
    requests = retries = 0
    for request in steps:
        if request:
            requests += 1
            budget.earn()
        elif budget.spend():
            retries += 1
        assert retries <= 10 + ratio * requests + 1e-6
        assert 0 <= budget.tokens <= 10
