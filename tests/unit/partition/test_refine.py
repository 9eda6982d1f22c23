"""Splits that are tried: what stages really take decides, whatever was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shardline.partition import refine
from shardline.partition.planner import Split, split
from shardline.partition.problem import Costing, Mask, Problem, bits
from shardline.partition.runtime import time_in_turn
from tests.unit.partition.problems import chain

if TYPE_CHECKING:
    from collections.abc import Callable


def tried(
    monkeypatch: pytest.MonkeyPatch, given: Problem, stages: int, takes: Callable[[int, int], float]
) -> tuple[Problem, Split, list[tuple[Mask, ...]]]:
    """Refine with stages that take `takes(first node, last node)` milliseconds; also which splits were tried."""
    seen: list[tuple[Mask, ...]] = []

    def run(trials: Any, result: Split) -> None:
        seen.append(result.stages)
        for stage in result.stages:
            nodes = list(bits(stage))
            trials.times.setdefault(stage, takes(nodes[0], nodes[-1]))

    monkeypatch.setattr(refine._Trials, "run", run)
    nothing: Any = None
    problem, found = refine.refined(nothing, given, split(given, stages), {}, 1, nothing)
    return problem, found, seen


def test_nodes_that_take_longer_than_predicted_move_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    real = [1.0] * 4 + [2.0] * 4
    given = chain(*[1.0] * 8)
    _, found, _ = tried(monkeypatch, given, 2, lambda first, last: sum(real[first : last + 1]))
    assert [list(bits(stage)) for stage in found.stages] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert [cost.compute_ms for cost in found.costs] == pytest.approx([6.0, 6.0])


def test_a_cut_that_costs_a_fusion_is_left_for_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(first: int, last: int) -> float:
        return last - first + 1.0 + (2.0 if first == 10 else 0.0)

    given = chain(*[1.0] * 20)
    _, found, seen = tried(monkeypatch, given, 2, takes)
    assert found.slowest_ms == pytest.approx(11.0)
    assert len(seen) > 1


def test_even_stages_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = chain(*[1.0] * 8)
    problem, found, seen = tried(monkeypatch, given, 2, lambda first, last: 2.0 * (last - first + 1))
    assert len(seen) == 1
    assert found.slowest_ms == pytest.approx(8.0)
    assert problem.total_ms == pytest.approx(16.0)


def test_tries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def takes(_first: int, _last: int) -> float:
        nonlocal count
        count += 1
        return float(1 + count * 7919 % 31)

    _, found, seen = tried(monkeypatch, chain(*[1.0] * 40), 3, takes)
    assert len(seen) <= refine._ROUNDS
    assert len(found.stages) == 3


def test_what_a_set_of_items_takes_as_a_stage_is_added_to_its_items_times() -> None:
    given = chain(1.0, 1.0, 1.0, 1.0)
    with_extra = Problem(**{**vars(given), "extra_ms": {0b0011: 0.5}})
    costing = Costing(with_extra)
    assert costing.busy_ms(0b0011) == pytest.approx(Costing(given).busy_ms(0b0011) + 0.5)
    assert costing.busy_ms(0b0111) == Costing(given).busy_ms(0b0111)
    assert costing.compute_ms(0b0011) == 2.0


class _Model:
    """Takes the times it is given, one after the other."""

    def __init__(self, times: list[float]) -> None:
        self.times = times
        self.runs = 0

    def run(self, _values: object) -> None:
        self.runs += 1

    def timed(self, _values: object) -> float:
        self.runs += 1
        return self.times[self.runs % len(self.times)]


def test_models_are_timed_by_medians_and_as_often_as_asked() -> None:
    models = [_Model([5.0]), _Model([1.0, 9.0, 2.0])]
    pairs: Any = [(model, {}) for model in models]
    assert time_in_turn(pairs, seconds=0.1) == [5.0, 2.0]
    assert min(model.runs for model in models) > 5
    assert time_in_turn([], seconds=0.1) == []
