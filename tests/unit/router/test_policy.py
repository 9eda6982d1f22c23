"""Which replica, which version, whether another try."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from shardline.router.policy import Candidate, RetryBudget, default_version, load_of, power_of_two


@pytest.mark.parametrize(
    ("own", "reported", "age_s", "load"),
    [
        (3, 10, 0.0, 10),
        (3, 10, 0.05, 10),
        (3, 10, 0.051, 3),
        (3, 10, float("inf"), 3),
        (10, 3, 0.0, 10),
        (0, 0, 0.0, 0),
    ],
)
def test_a_fresh_report_counts_but_never_for_less_than_our_own_rows(
    own: int, reported: int, age_s: float, load: int
) -> None:
    assert load_of(Candidate(own, reported, age_s)) == load


def test_without_a_report_only_our_own_rows_count() -> None:
    assert load_of(Candidate(5)) == 5


def chosen(loads: list[int], *draws: int) -> int:
    left = list(draws)

    def pick(count: int) -> int:
        draw = left.pop(0)
        assert draw < count
        return draw

    return power_of_two([Candidate(load) for load in loads], pick)


def test_the_only_replica_is_chosen() -> None:
    assert chosen([9], 0) == 0


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(2))
def test_the_less_loaded_of_two_different_replicas_is_chosen(first: int, second: int) -> None:
    other = second if second < first else second + 1
    for loads in ([1, 2, 3], [3, 2, 1], [2, 2, 1]):
        expected = other if loads[other] < loads[first] else first
        assert chosen(loads, first, second) == expected


def test_every_pair_of_replicas_is_drawn_equally_often() -> None:
    pairs: Counter[frozenset[int]] = Counter()
    for first, second in product(range(4), range(3)):
        winner = chosen([0, 0, 0, 0], first, second)
        assert winner == first
        loser = chosen([1 if index == first else 0 for index in range(4)], first, second)
        pairs[frozenset((first, loser))] += 1
    assert len(pairs) == 6
    assert set(pairs.values()) == {2}


@pytest.mark.parametrize(
    ("ready", "version"),
    [
        ({1: 2}, 1),
        ({1: 2, 2: 0}, 1),
        ({1: 2, 2: 1}, 1),
        ({1: 2, 2: 2}, 2),
        ({1: 1, 2: 2}, 2),
        ({1: 3, 2: 3, 10: 3}, 10),
        ({2: 0, 1: 0}, 2),
        ({3: 2, 1: 2, 2: 5}, 2),
    ],
)
def test_the_default_is_the_newest_version_that_is_ready_as_widely_as_any(ready: dict[int, int], version: int) -> None:
    assert default_version(ready) == version


def test_a_rollout_changes_the_default_once() -> None:
    steps = [{1: 3}, {1: 3, 2: 0}, {1: 3, 2: 1}, {1: 3, 2: 2}, {1: 3, 2: 3}, {1: 2, 2: 3}, {1: 0, 2: 3}, {2: 3}]
    assert [default_version(step) for step in steps] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_budget_begins_full_and_is_then_earned_by_requests() -> None:
    budget = RetryBudget(0.25, burst=2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(3):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_a_budget_does_not_grow_beyond_its_burst() -> None:
    budget = RetryBudget(1.0, burst=3)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]


def test_a_budget_without_a_share_is_its_burst() -> None:
    budget = RetryBudget(0.0, burst=1)
    budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
    budget.earn()
    assert not budget.spend()
