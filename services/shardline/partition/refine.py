"""Splits tried out: stages are built and timed, what came out corrects the nodes' times, and the next best split is tried.

Optimisation differs with where a graph is cut (a fusion that no longer finds its second half, a layout that is converted at each
skip connection), so only a stage's own time is sure. Decision: docs/adr/0012.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.partition.parts import MODEL_FILE, part_model, stage_part, write_model
from shardline.partition.planner import Split, settle, split
from shardline.partition.problem import Costing, Mask, Problem, bits
from shardline.partition.runtime import Model, time_in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shardline.partition.costs import Progress
    from shardline.partition.graph import Graph
    from shardline.partition.runtime import Arrays

TIMED_BYTES = 384 * 2**20
"""Weights that are loaded at once to be timed, so that the planner stays below 1 GB whatever the model. A larger stage is not timed;
a split whose stages, with as much again for the yardstick, have more is timed stage by stage instead of in turn."""
_STAGE_S = 1.0
_ROUNDS = 5
_MOST_S = 60.0
"""No further split is tried after so many seconds."""
_EVEN = 1.02
"""A slowest stage within this factor of the mean of all is good enough."""
_DOUBT = 1.03
"""What was measured counts so much more than what is only predicted: near ties are tried."""


def can_be_timed(result: Split) -> bool:
    """Whether every stage is small enough to be loaded here."""
    return all(cost.weight_bytes <= TIMED_BYTES for cost in result.costs)


def refined(
    graph: Graph, problem: Problem, result: Split, samples: Arrays, threads: int, progress: Progress
) -> tuple[Problem, Split]:
    """The best split of those tried, with measured times, and the problem whose times of nodes agree with it.

    Ends when the next best split consists of stages that were all tried, when stages are even, or after _ROUNDS and _MOST_S.
    Raises ModelRejected or ModelFailed where a stage cannot be loaded or run.
    """
    trials = _Trials(graph, samples, threads, progress)
    until = time.monotonic() + _MOST_S
    best: tuple[Problem, Split] | None = None
    for _ in range(_ROUNDS):
        trials.run(result)
        problem = _corrected(problem, result.stages, trials.times)
        settled = settle(Costing(problem), result.stages, result.notes)
        if best is None or settled.slowest_ms < best[1].slowest_ms:
            best = problem, settled
        if _is_even(best[1]) or time.monotonic() > until:
            break
        result = split(_with_doubt(problem, trials.times), len(result.stages))
        if trials.know(result) or not can_be_timed(result):
            break
    return best or (problem, result)


def _is_even(result: Split) -> bool:
    busy = [cost.busy_ms for cost in result.costs]
    return max(busy) * len(busy) <= _EVEN * sum(busy)


def _corrected(problem: Problem, stages: Sequence[Mask], times: dict[Mask, float]) -> Problem:
    """Each stage's nodes scaled so that together they take what the stage took."""
    costing = Costing(problem)
    items = list(problem.items)
    for stage in stages:
        predicted = costing.cost(stage).compute_ms
        factor = times[stage] / predicted if predicted else 1.0
        for at in bits(stage):
            items[at] = replace(items[at], ms=items[at].ms * factor)
    return replace(problem, items=tuple(items))


def _with_doubt(problem: Problem, times: dict[Mask, float]) -> Problem:
    """Stages that were timed cost what they took, and a little more."""
    costing = Costing(problem)
    extra = {stage: ms * _DOUBT - costing.cost(stage).compute_ms for stage, ms in times.items()}
    return replace(problem, extra_ms={stage: ms for stage, ms in extra.items() if ms > 0})


class _Trials:
    """Times of stages. All are in terms of one yardstick, the first split's first stage: a machine's speed changes between rounds."""

    def __init__(self, graph: Graph, samples: Arrays, threads: int, progress: Progress) -> None:
        self._graph = graph
        self._samples = samples
        self._threads = threads
        self._progress = progress
        self._yardstick: tuple[Model, Arrays, float] | None = None
        self._rounds = 0
        self.times: dict[Mask, float] = {}

    def know(self, result: Split) -> bool:
        """Whether all stages were timed before."""
        return all(stage in self.times for stage in result.stages)

    def run(self, result: Split) -> None:
        """Time the stages, in turn where all of them may be in memory at once, else one by one."""
        self._rounds += 1
        if 2 * sum(cost.weight_bytes for cost in result.costs) <= TIMED_BYTES:
            self._in_turn(result.stages)
        else:
            self._one_by_one(result.stages)
        self._progress(len(result.stages), len(result.stages), "timed")

    def _in_turn(self, stages: Sequence[Mask]) -> None:
        loaded = dict(zip(stages, self._loaded(stages), strict=True))
        fresh = [stage for stage in stages if stage not in self.times]
        timed = [loaded[stage] for stage in fresh]
        if self._yardstick is None:
            taken, pace = time_in_turn(timed, seconds=_STAGE_S), 1.0
            self._yardstick = (*timed[0], taken[0])
        else:
            model, values, first_ms = self._yardstick
            *taken, now_ms = time_in_turn([*timed, (model, values)], seconds=_STAGE_S)
            pace = first_ms / now_ms
        self.times |= {stage: ms * pace for stage, ms in zip(fresh, taken, strict=True)}

    def _one_by_one(self, stages: Sequence[Mask]) -> None:
        for stage, timed in zip(stages, self._loaded(stages), strict=True):
            if stage not in self.times:
                (self.times[stage],) = time_in_turn([timed], seconds=_STAGE_S)

    def _loaded(self, stages: Sequence[Mask]) -> Iterator[tuple[Model, Arrays]]:
        """Each stage, and the values that the ones before it make; loaded when it is asked for."""
        values = dict(self._samples)
        for at, stage in enumerate(stages):
            self._progress(at, len(stages), f"timing stage {at} (round {self._rounds})")
            part = stage_part(self._graph, [self._graph.nodes[bit] for bit in bits(stage)], last=at == len(stages) - 1)
            with tempfile.TemporaryDirectory(prefix="shardline-stage-") as folder:
                write_model(part_model(self._graph, part), self._graph.path, Path(folder))
                model = Model(Path(folder) / MODEL_FILE, threads=self._threads)
            before = {name: values[name] for name in model.inputs if name in values}
            values |= model.run(values)
            yield model, before
