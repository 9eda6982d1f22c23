"""What was measured, and what follows from it: medians over rounds, ratios, goals. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Key:
    """What a cell measures."""

    model: str
    system: str
    callers: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one cell. rate: answers per second. *_cpu_ms: CPU milliseconds per answer, over all processes.

    memory_mb: proportional set size of the server's processes at the end, in MB. wrong: calls without an answer.
    """

    key: Key
    round: int
    answers: int
    wrong: int
    rate: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    generator_cpu_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell over all its rounds: medians, and the extremes of the rate."""

    key: Key
    rounds: int
    wrong: int
    rate: float
    rate_low: float
    rate_high: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    generator_cpu_ms: float
    memory_mb: float


def cells(samples: Iterable[Sample]) -> dict[Key, Cell]:
    """Samples of the same cell become one."""
    grouped: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.key].append(sample)
    return {key: _cell(key, group) for key, group in grouped.items()}


def _cell(key: Key, group: Sequence[Sample]) -> Cell:
    rates = [sample.rate for sample in group]
    return Cell(
        key=key,
        rounds=len(group),
        wrong=sum(sample.wrong for sample in group),
        rate=median(rates),
        rate_low=min(rates),
        rate_high=max(rates),
        p50_ms=median(sample.p50_ms for sample in group),
        p99_ms=median(sample.p99_ms for sample in group),
        server_cpu_ms=median(sample.server_cpu_ms for sample in group),
        generator_cpu_ms=median(sample.generator_cpu_ms for sample in group),
        memory_mb=median(sample.memory_mb for sample in group),
    )


def ratios(samples: Iterable[Sample], baseline: str) -> dict[Key, float]:
    """Rate of each cell over the baseline's with the same model and callers.

    The ratio is taken within each round and then the median: a machine that is slower for a minute slows both.
    Cells without a baseline are left out; the baseline itself is 1.
    """
    by_round = {(sample.key, sample.round): sample.rate for sample in samples}
    found: dict[Key, list[float]] = defaultdict(list)
    for (key, number), rate in by_round.items():
        base = by_round.get((Key(key.model, baseline, key.callers), number))
        if base:
            found[key].append(rate / base)
    return {key: median(values) for key, values in found.items()}


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to reach: Shardline's rate over `baseline`'s, for one model and number of callers."""

    model: str
    callers: int
    baseline: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what came of it; `system` is Shardline's configuration that did best."""

    goal: Goal
    system: str
    ratio: float

    @property
    def reached(self) -> bool:
        """Whether the ratio is at least the goal's."""
        return self.ratio >= self.goal.ratio


def verdicts(goals: Iterable[Goal], measured: dict[str, dict[Key, float]], candidates: Sequence[str]) -> list[Verdict]:
    """Judge each goal whose cells were measured. measured: ratios per baseline."""
    judged = []
    for goal in goals:
        ratio_of = measured.get(goal.baseline, {})
        reached = [(ratio_of[key], key.system) for key in _keys(goal, candidates) if key in ratio_of]
        if reached:
            ratio, system = max(reached)
            judged.append(Verdict(goal, system, ratio))
    return judged


def _keys(goal: Goal, candidates: Sequence[str]) -> list[Key]:
    return [Key(goal.model, system, goal.callers) for system in candidates]


def _goals(baseline: str, table: dict[str, dict[int, float]]) -> list[Goal]:
    return [Goal(model, n, baseline, ratio) for model, row in table.items() for n, ratio in row.items()]


GOALS = [
    *_goals(
        "plain",
        {
            "digits": {1: 1.0, 8: 2.5, 32: 5.0, 64: 6.0},
            "minilm": {1: 1.0, 8: 1.25, 32: 1.45},
            "identity_image": {1: 0.7, 8: 1.05, 32: 1.15, 64: 1.15},
            "image_mean": {1: 0.8, 8: 1.1, 32: 1.2},
            "resnet50": {1: 1.0, 8: 1.05},
        },
    ),
    *_goals(
        "mosec",
        {
            "digits": {1: 5.0, 8: 4.0, 32: 0.95, 64: 0.95},
            "minilm": {1: 1.4, 8: 1.0, 32: 1.0, 64: 1.0},
            "identity_image": {1: 1.4, 8: 1.4, 32: 1.4, 64: 1.4},
        },
    ),
    *_goals("limit", {"minilm": {32: 0.95}, "resnet50": {32: 0.95}}),
]
"""What the project set out to reach on two cores, the load generator included."""
