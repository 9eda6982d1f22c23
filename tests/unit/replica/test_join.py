"""A stage that is fed by several waits until a call has all its tensors, and no longer than it is wanted."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME
from shardline.core.errors import Exhausted
from shardline.replica.chunk import NO_DEADLINE, Chunk, Head, InputHead
from shardline.replica.join import Joins
from tests.unit.replica.doubles import chunk

ORDER = ("a", "b", "c")


def head(*names: str) -> Head:
    inputs = tuple(InputHead(name, BY_NAME["FP32"], (2,), 8) for name in names)
    return Head(PoolKey("m", 1, 2), inputs, (), None)


HEADS = {name: head(name) for name in ORDER}


def sent(names: str, *calls: list[float], receipts: tuple[bytes, ...] = (), **fields: object) -> Chunk:
    """What one sender has of some calls: for each name the rows' values, told apart by the name."""
    made = chunk(*calls, **fields)  # type: ignore[arg-type]
    arrays = tuple(made.arrays[0] + ord(name) * 1000 for name in names)
    return replace(made, head=HEADS[names] if len(names) == 1 else head(*names), arrays=arrays, receipts=receipts)


def joins(needed: str = "abc", limit_rows: int = 100) -> Joins:
    return Joins(ORDER, frozenset(needed), limit_rows)


def values(joined: Chunk) -> dict[str, list[float]]:
    """First value of each row, by input, without what told the inputs apart."""
    return {
        spec.name: (array[:, 0] - ord(spec.name) * 1000).tolist()
        for spec, array in zip(joined.head.inputs, joined.arrays, strict=True)
    }


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_a_call_is_complete_with_its_last_tensor_whatever_the_order(order: tuple[str, ...]) -> None:
    waiting = joins()
    assert [waiting.add(sent(name, [1.0, 2.0]), 0.0) for name in order[:2]] == [[], []]
    assert waiting.rows == 2
    (complete,) = waiting.add(sent(order[2], [1.0, 2.0]), 0.0)
    assert [spec.name for spec in complete.head.inputs] == list(ORDER)
    assert values(complete) == {"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [1.0, 2.0]}
    assert waiting.rows == 0


def test_what_comes_whole_does_not_wait() -> None:
    waiting = joins("ab")
    whole = sent("ab", [1.0])
    assert waiting.add(whole, 0.0) == [whole]
    assert waiting.rows == 0


def test_what_is_not_needed_is_not_waited_for() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0]), 0.0)
    (complete,) = waiting.add(sent("b", [1.0]), 0.0)
    assert set(values(complete)) == {"a", "b"}


def test_calls_that_came_together_are_completed_one_by_one() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0], [2.0, 2.0], [3.0]), 0.0)
    (second,) = waiting.add(sent("b", [2.0, 2.0], first=1), 0.0)
    assert (list(second.calls), values(second)) == ([1], {"a": [2.0, 2.0], "b": [2.0, 2.0]})
    rest = waiting.add(sent("b", [3.0], first=2), 0.0) + waiting.add(sent("b", [1.0]), 0.0)
    assert [(list(part.calls), values(part)["a"]) for part in rest] == [([2], [3.0]), ([0], [1.0])]
    assert waiting.rows == 0


def test_calls_of_different_routers_never_meet() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0], peer=b"one"), 0.0)
    assert waiting.add(sent("b", [2.0], peer=b"two"), 0.0) == []
    (complete,) = waiting.add(sent("b", [1.0], peer=b"one"), 0.0)
    assert (complete.peer, values(complete)) == (b"one", {"a": [1.0], "b": [1.0]})


def test_calls_that_were_joined_alike_share_a_head() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0], [2.0]), 0.0)
    one, two = waiting.add(sent("b", [1.0], [2.0]), 0.0)
    assert one.head is two.head


def test_the_receipts_of_all_stages_are_kept_once() -> None:
    waiting = joins()
    waiting.add(sent("a", [1.0], receipts=(b"0", b"1")), 0.0)
    waiting.add(sent("b", [1.0], receipts=(b"0", b"2")), 0.0)
    (complete,) = waiting.add(sent("c", [1.0]), 0.0)
    assert complete.receipts == (b"0", b"1", b"2")


def test_a_cancelled_call_is_not_completed() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0], [2.0, 2.0]), 0.0)
    waiting.cancel(b"e", {1, 7})
    waiting.cancel(b"other", {0})
    assert waiting.rows == 1
    complete = waiting.add(sent("b", [1.0], [2.0, 2.0]), 0.0)
    assert [list(part.calls) for part in complete] == [[0]]


def test_a_call_is_given_up_at_its_deadline() -> None:
    waiting = joins("ab")
    waiting.add(sent("a", [1.0], [2.0], deadlines=[5.0, NO_DEADLINE]), 0.0)
    waiting.add(sent("a", [3.0], first=2), 6.0)
    assert waiting.rows == 2
    complete = waiting.add(sent("b", [1.0], [2.0]), 6.0)
    assert [list(part.calls) for part in complete] == [[1]]


def test_rows_that_wait_are_bounded_and_those_refused_are_forgotten() -> None:
    waiting = joins("ab", limit_rows=4)
    waiting.add(sent("a", [1.0], [2.0]), 0.0)
    with pytest.raises(Exhausted, match=r"m:1/2: 2 rows wait for other stages, the limit is 4") as caught:
        waiting.add(sent("a", [3.0], [4.0], [5.0], first=2), 0.0)
    assert caught.value.retry_after_s == 0.1
    assert waiting.rows == 2
    complete = waiting.add(sent("b", [1.0], [2.0]), 0.0)
    assert [list(part.calls) for part in complete] == [[0], [1]]
    assert waiting.rows == 0


def test_a_refusal_takes_back_what_the_other_stages_sent_of_these_calls() -> None:
    waiting = joins("ab", limit_rows=2)
    waiting.add(sent("a", [1.0], [2.0]), 0.0)
    with pytest.raises(Exhausted):
        waiting.add(sent("b", [2.0], [3.0], [4.0], first=1), 0.0)  # call 1 would be complete, but all are refused
    assert waiting.rows == 1
    assert waiting.add(sent("a", [9.0], first=9), 0.0) == []
    assert [list(part.calls) for part in waiting.add(sent("b", [1.0]), 0.0)] == [[0]]
