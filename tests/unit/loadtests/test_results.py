"""Medians, ratios and goals."""

import pytest

from loadtests.bench.matrix import order
from loadtests.bench.results import GOALS, Goal, Key, Sample, cells, ratios, verdicts


def sample(system: str, number: int, rate: float, *, callers: int = 8, wrong: int = 0) -> Sample:
    return Sample(
        key=Key("digits", system, callers),
        round=number,
        answers=int(rate),
        wrong=wrong,
        rate=rate,
        p50_ms=rate / 100,
        p99_ms=rate / 10,
        server_cpu_ms=1.0,
        generator_cpu_ms=0.1,
        memory_mb=50.0,
    )


def test_a_cell_is_the_median_of_its_rounds_and_keeps_the_extremes_and_all_errors() -> None:
    found = cells([sample("plain", 0, 100), sample("plain", 1, 900, wrong=2), sample("plain", 2, 120, wrong=1)])
    cell = found[Key("digits", "plain", 8)]
    assert (cell.rate, cell.rate_low, cell.rate_high) == (120, 100, 900)
    assert cell.rounds == 3
    assert cell.wrong == 3
    assert cell.p50_ms == pytest.approx(1.2)


def test_ratios_are_taken_within_a_round_so_that_a_slow_minute_cancels() -> None:
    samples = [
        *(sample("plain", 0, 100), sample("native-1", 0, 300)),
        *(sample("plain", 1, 10), sample("native-1", 1, 30)),  # a neighbour took the machine
        *(sample("plain", 2, 100), sample("native-1", 2, 310)),
    ]
    found = ratios(samples, "plain")
    assert found[Key("digits", "native-1", 8)] == pytest.approx(3.0)
    assert found[Key("digits", "plain", 8)] == 1.0


def test_a_cell_without_its_baseline_has_no_ratio() -> None:
    assert ratios([sample("native-1", 0, 300)], "plain") == {}
    assert ratios([sample("plain", 0, 0), sample("native-1", 0, 300)], "plain") == {}


def test_a_goal_is_judged_by_the_configuration_that_did_best() -> None:
    measured = {"plain": {Key("digits", "native-1", 8): 2.4, Key("digits", "native-2", 8): 2.6}}
    [verdict] = verdicts([Goal("digits", 8, "plain", 2.5)], measured, ["native-1", "native-2"])
    assert verdict.system == "native-2"
    assert verdict.reached
    [missed] = verdicts([Goal("digits", 8, "plain", 2.5)], measured, ["native-1"])
    assert not missed.reached


def test_goals_that_were_not_measured_are_not_judged() -> None:
    assert verdicts(GOALS, {"plain": {}}, ["native-1"]) == []


def test_no_goal_is_stated_twice() -> None:
    assert len({(goal.model, goal.callers, goal.baseline) for goal in GOALS}) == len(GOALS)


def test_rounds_alternate_in_direction_so_that_drift_favours_nobody() -> None:
    assert order(["a", "b", "c"], 0) == ["a", "b", "c"]
    assert order(["a", "b", "c"], 1) == ["c", "b", "a"]
