"""Rows that wait: bounded, by shape and urgency, without those that nobody wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.replica.assemble import shape_key
from shardline.replica.queue import BatchQueue
from tests.unit.replica.doubles import HEAD, OTHER_SHAPE, chunk, spec, values_of

if TYPE_CHECKING:
    from shardline.replica.chunk import Chunk

RULES = spec().batching
KEY, OTHER = shape_key(HEAD, RULES), shape_key(OTHER_SHAPE, RULES)


def put(queue: BatchQueue, made: Chunk) -> None:
    queue.put(shape_key(made.head, RULES), made)


def queue_of(*chunks: Chunk, limit: int = 100) -> BatchQueue:
    queue = BatchQueue(limit)
    for made in chunks:
        put(queue, made)
    return queue


def taken(queue: BatchQueue, rows: int, now: float = 0.0, key: object = KEY) -> list[float]:
    return values_of(queue.take(key, rows, now).chunks)  # type: ignore[arg-type]


@pytest.mark.parametrize(("waiting", "more", "room"), [(0, 10, True), (0, 11, False), (7, 3, True), (7, 4, False)])
def test_the_queue_is_bounded_in_rows(waiting: int, more: int, room: bool) -> None:
    queue = queue_of(*(chunk([1.0]) for _ in range(waiting)), limit=10)
    assert queue.has_room(more) is room


def test_rows_leave_in_the_order_in_which_they_came() -> None:
    queue = queue_of(chunk([1.0], [2.0]), chunk([3.0]), chunk([4.0], [5.0]))
    assert [taken(queue, 3), taken(queue, 1), taken(queue, 9)] == [[1.0, 2.0, 3.0], [4.0], [5.0]]
    assert (queue.rows, queue.next_key()) == (0, None)


def test_the_most_urgent_rows_leave_first_and_in_order() -> None:
    queue = queue_of(
        chunk([1.0], priority=2), chunk([2.0], priority=1), chunk([3.0], priority=3), chunk([4.0], priority=1)
    )
    assert taken(queue, 9) == [2.0, 4.0, 1.0, 3.0]


def test_a_call_that_does_not_fit_is_not_overtaken_by_smaller_ones() -> None:
    queue = queue_of(chunk([1.0]), chunk([2.0] * 3), chunk([3.0]), chunk([4.0], priority=9))
    assert [taken(queue, 3), taken(queue, 4)] == [[1.0], [2.0] * 3 + [3.0]]


def test_a_call_above_the_batch_is_taken_alone() -> None:
    queue = queue_of(chunk([1.0] * 5, [2.0]), chunk([3.0]))
    assert [taken(queue, 2), taken(queue, 2)] == [[1.0] * 5, [2.0, 3.0]]


def test_shapes_take_turns_by_urgency_and_then_by_age() -> None:
    queue = queue_of(
        chunk([1.0], arrived=5.0),
        chunk([2.0], arrived=4.0, head=OTHER_SHAPE),
        chunk([3.0], arrived=6.0, head=OTHER_SHAPE, priority=1),
        chunk([4.0], arrived=7.0, priority=1),
    )
    order = []
    while (key := queue.next_key()) is not None:
        order += taken(queue, 1, key=key)
    assert order == [2.0, 1.0, 3.0, 4.0]


def test_the_view_tells_rows_age_and_the_first_deadline_of_one_shape() -> None:
    queue = queue_of(
        chunk([1.0], arrived=5.0, deadlines=[50.0], priority=2),
        chunk([2.0, 2.0], arrived=6.0, deadlines=[40.0], priority=1),
        chunk([3.0], arrived=1.0, deadlines=[10.0], head=OTHER_SHAPE),
    )
    view = queue.view(KEY)
    assert (view.rows, view.oldest_at, view.earliest_deadline) == (3, 5.0, 40.0)
    assert queue.oldest_at() == 1.0
    assert queue.calls == 3


def test_late_rows_are_told_apart_and_make_room_in_the_batch() -> None:
    queue = queue_of(chunk([1.0], [2.0], [3.0], deadlines=[1.0, 9.0, 1.0]), chunk([4.0]))
    found = queue.take(KEY, 2, now=5.0)
    assert values_of(found.chunks) == [2.0, 4.0]
    assert [late for _, late in found.expired] == [[0], [2]]
    assert (found.rows, queue.rows) == (2, 0)


def test_cancelled_rows_are_left_out_and_said_to_have_waited_here() -> None:
    queue = queue_of(chunk([1.0], [2.0], first=10), chunk([3.0], first=12, peer=b"other"))
    assert queue.cancel(b"e", {11, 12, 99}) == {11}
    assert queue.cancel(b"other", {12}) == {12}
    assert taken(queue, 9) == [1.0]
    assert queue.rows == 0


def test_a_queue_of_cancelled_rows_only_gives_an_empty_batch() -> None:
    queue = queue_of(chunk([1.0], [2.0]))
    queue.cancel(b"e", {0, 1})
    found = queue.take(KEY, 9, now=0.0)
    assert (found.chunks, found.rows, found.expired) == ([], 0, [])
    assert (queue.rows, queue.next_key()) == (0, None)


def test_draining_empties_all_shapes() -> None:
    queue = queue_of(chunk([1.0]), chunk([2.0], head=OTHER_SHAPE), chunk([3.0]))
    assert sorted(values_of(queue.drain())) == [1.0, 2.0, 3.0]
    assert (queue.rows, queue.next_key(), queue.calls) == (0, None, 0)
