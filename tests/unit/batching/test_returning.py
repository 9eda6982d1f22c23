"""Callers that come back after their answer are waited for, those that do not are not."""

from __future__ import annotations

import pytest

from shardline.batching.policy import Returning
from shardline.batching.returning import ReturnTracker

ALPHA_S = 0.010


def loop_of(rows: int, spread_s: float, batches: int = 5) -> tuple[ReturnTracker, float]:
    """A tracker that saw `rows` callers come back `spread_s` after each answer, and the time."""
    tracker, now = ReturnTracker(), 0.0
    for _ in range(batches):
        tracker.answered(rows, now)
        for _ in range(rows):
            tracker.arrived(1, now + spread_s)
        now += 0.050
    return tracker, now


def test_nothing_is_waited_for_before_anybody_came_back() -> None:
    tracker = ReturnTracker()
    assert tracker.returning(1, ALPHA_S) is None
    tracker.arrived(4, 0.0)
    tracker.answered(4, 0.1)
    assert tracker.returning(1, ALPHA_S) is None


def test_callers_that_come_back_soon_are_waited_for() -> None:
    tracker, now = loop_of(8, 0.002)
    tracker.answered(8, now)
    tracker.arrived(1, now + 0.001)
    wait = tracker.returning(1, ALPHA_S)
    assert wait == Returning(8, now, pytest.approx(0.004))  # type: ignore[arg-type]


def test_rows_that_waited_already_count_beside_those_that_return() -> None:
    tracker, now = loop_of(8, 0.002)
    tracker.answered(8, now)
    wait = tracker.returning(3, ALPHA_S)
    assert wait is not None
    assert wait.rows == 11


def test_the_wait_is_over_when_nearly_all_are_back() -> None:
    tracker, now = loop_of(10, 0.002)
    tracker.answered(10, now)
    tracker.arrived(8, now + 0.001)
    assert tracker.returning(8, ALPHA_S) is not None
    tracker.arrived(1, now + 0.001)
    assert tracker.returning(9, ALPHA_S) is None


@pytest.mark.parametrize("spread_s", [0.010, 0.015, 0.040])
def test_a_wait_that_costs_more_than_a_batch_saves_is_not_made(spread_s: float) -> None:
    tracker, now = loop_of(8, spread_s)
    tracker.answered(8, now)
    assert tracker.returning(1, ALPHA_S) is None


def test_callers_that_stop_coming_back_are_not_waited_for_again() -> None:
    tracker, now = loop_of(8, 0.002)
    tracker.answered(8, now)
    tracker.arrived(2, now + 0.001)
    tracker.answered(2, now + 0.060)
    assert tracker.returning(1, ALPHA_S) is None


def test_a_loop_that_closes_again_is_noticed() -> None:
    tracker, now = loop_of(8, 0.002)
    tracker.answered(8, now)
    tracker.answered(8, now + 0.1)
    assert tracker.returning(1, ALPHA_S) is None
    tracker.arrived(8, now + 0.104)
    tracker.answered(8, now + 0.2)
    assert tracker.returning(1, ALPHA_S) == Returning(9, now + 0.2, pytest.approx(0.008))  # type: ignore[arg-type]


def test_the_spread_follows_what_is_seen() -> None:
    tracker, now = loop_of(8, 0.002)
    for _ in range(40):
        tracker.answered(8, now)
        tracker.arrived(8, now + 0.005)
        now += 0.050
    assert tracker.spread_s == pytest.approx(0.005, rel=0.01)
