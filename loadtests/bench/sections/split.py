"""Two stages of one thread each against one single-threaded replica of the whole model, and against the stages alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from loadtests.bench import stagetimes
from loadtests.bench.matrix import measure_model
from loadtests.bench.results import Key, cells
from loadtests.bench.sections import Skipped
from loadtests.bench.systems import System, start
from loadtests.bench.tables import Table, number
from loadtests.plain_server import load
from loadtests.tensors import sample_inputs
from shardline.partition.plan import load_plan
from shardline.wire.client import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.bench.models import BenchModel
    from loadtests.bench.results import Cell, Sample
    from loadtests.bench.sections import Setting
    from shardline.partition.plan import Plan

STAGES = 2
CALLERS = {"resnet50": (1, 4, 8, 16), "minilm": (1, 8, 32, 64)}
_STAGES_TIMED_AT = 8
"""Callers of the sample of each round after which the stages are timed in a process: in its middle."""
BATCHES = {"resnet50": (1, 2, 4, 8), "minilm": (1, 2, 4, 8, 16, 32)}
LARGE_ROWS = {"resnet50": 32, "minilm": 128}
HOP_MS = 1.5
_PLAN_S = 300.0
_ONE_THREAD = (("SHARDLINE_THREADS", "1"),)


@dataclass(frozen=True, slots=True)
class Fill:
    """A large request in a pipeline. parts: micro-batches, of `rows` rows; took_ms: median over calls.

    slowest_ms: the slower stage in a process with such a micro-batch, while the other stage runs, too.
    """

    parts: int
    rows: int
    took_ms: float
    slowest_ms: float


Times = list[dict[int, float]]
"""Milliseconds by rows of a batch, for each stage."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of one model.

    planned: the stages in processes, right after planning. alone, together, in_turn: the same in each round: one stage only, all
    at once, one after the other (one row). one_whole, two_wholes: the whole model in a process, and in two at once, by round.
    """

    model: str
    plan: Plan
    planned: Times
    samples: Sequence[Sample]
    alone: Sequence[Times]
    together: Sequence[Times]
    in_turn: Sequence[Sequence[float]]
    one_whole: Sequence[Times]
    two_wholes: Sequence[Times]
    fill: Fill

    @property
    def cells(self) -> dict[Key, Cell]:
        """Medians over the rounds."""
        return cells(self.samples)

    def rates(self, system: str) -> list[float]:
        """Rows per second by round, at the number of callers with the best median."""
        medians = {callers: self.cells[Key(self.model, system, callers)].rate for callers in CALLERS[self.model]}
        best = Key(self.model, system, max(medians, key=lambda callers: medians[callers]))
        return [sample.rate for sample in self.samples if sample.key == best]


def median_ratio(rates: Sequence[float], references: Sequence[float]) -> float:
    """Median of the ratios within each round: what slows the machine for a minute slows all that the round compares."""
    return median(rate / reference for rate, reference in zip(rates, references, strict=True))


def min_max_rate(times: Times) -> float:
    """Rows per second of the slowest stage, at the batch size that is best for it."""
    return max(1e3 * rows / max(of_stage[rows] for of_stage in times) for rows in times[0])


def median_times(rounds: Sequence[Times]) -> Times:
    """Each time's median over the rounds."""
    return [
        {rows: median(times[stage][rows] for times in rounds) for rows in of_stage}
        for stage, of_stage in enumerate(rounds[0])
    ]


def measure(setting: Setting) -> list[Table]:
    """All tables, over the models that this run has."""
    found = [_measure_one(setting, setting.models[name]) for name in BATCHES if name in setting.models]
    if not found:
        raise Skipped(f"needs one of the models {', '.join(BATCHES)}")
    return [throughput(found), latency(found), prediction(found), filling(found)]


def _measure_one(setting: Setting, model: BenchModel) -> Measured:
    folder = setting.work / "plans" / model.name
    setting.say(f"split {model.name}: planning")
    _plan(model, folder)
    whole = System("whole", "whole ×1", front="native", replicas=1, environment=_ONE_THREAD)
    split = replace(whole, key="split", label="2 stages", arguments=("--stages", f"{model.name}={folder}"))
    rows, seconds = BATCHES[model.name], setting.pace.seconds / 4

    def timed(*stages: int) -> Times:
        return stagetimes.measure(folder, model.path, stages, rows, seconds)

    def alone() -> Times:
        return [times for stage in range(STAGES) for times in timed(stage)]

    planned = alone()
    missing: list[str] = []
    samples: list[Sample] = []
    found: dict[str, list[Times]] = {"alone": [], "together": [], "one_whole": [], "two_wholes": []}
    in_turn: list[Sequence[float]] = []
    pace = replace(setting.pace, seconds=2 * setting.pace.seconds)
    for sample in measure_model(
        model, (split, whole), CALLERS[model.name], pace, setting.work, skipped=missing.append, step=setting.say
    ):
        samples.append(sample)
        if sample.round == len(in_turn) and sample.key.callers >= _STAGES_TIMED_AT:
            setting.say(f"split {model.name}: stages in process")
            found["alone"].append(alone())
            found["together"].append(timed(*range(STAGES)))
            found["one_whole"].append(timed(stagetimes.WHOLE))
            found["two_wholes"].append(timed(*[stagetimes.WHOLE] * STAGES))
            in_turn.append(stagetimes.measure_in_turn(folder, model.path, range(STAGES), 2 * seconds))
    if {sample.key.system for sample in samples} != {"split", "whole"}:
        raise Skipped("; ".join(missing))
    setting.say(f"split {model.name}: a large request")
    with start(split, model, setting.work) as endpoint:
        parts, took_ms = asyncio.run(_fill(model, endpoint.port, LARGE_ROWS[model.name], setting.pace.seconds * 2))
    size = -(-LARGE_ROWS[model.name] // parts)
    slowest = stagetimes.measure(folder, model.path, range(STAGES), [size], 2 * seconds)
    fill = Fill(parts, size, took_ms, max(times[size] for times in slowest))
    return Measured(
        model=model.name,
        plan=load_plan(folder),
        planned=planned,
        samples=samples,
        in_turn=in_turn,
        fill=fill,
        **found,
    )


def _plan(model: BenchModel, folder: Path) -> None:
    """Two measured stages, as `shardline plan` makes them."""
    command = [sys.executable, "-m", "shardline.cli", "plan", str(model.path), "--stages", str(STAGES)]
    command += ["--threads", "1", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PLAN_S, check=False)
    if done.returncode:
        raise Skipped(done.stderr.strip() or done.stdout.strip())


async def _fill(model: BenchModel, port: int, rows: int, seconds: float) -> tuple[int, float]:
    """(micro-batches, median milliseconds) of one caller's large requests, for so many seconds, by the server's statistics."""
    inputs = sample_inputs(load(str(model.path), 1), rows)
    times: list[float] = []
    async with InferenceClient(f"127.0.0.1:{port}", timeout_s=60) as client:
        (before,) = await client.statistics(model.name)
        until = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < until:
            times.append((await client.infer(model.name, inputs)).latency_s)
        (after,) = await client.statistics(model.name)
    parts = max(1, round((after.execution_count - before.execution_count) / len(times)))
    return parts, 1e3 * median(times)


def throughput(found: list[Measured]) -> Table:
    """Both systems at each number of callers, and the two goals at the best one."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        medians = one.cells
        for callers in CALLERS[one.model]:
            pair = [medians.get(Key(one.model, system, callers)) for system in ("split", "whole")]
            rates = ("–" if cell is None else number(cell.rate) for cell in pair)
            rows.append((one.model, str(callers), *rates, "", "", "", ""))
        split, whole = one.rates("split"), one.rates("whole")
        alone, together = (list(map(min_max_rate, times)) for times in (one.alone, one.together))
        one_whole, two_wholes = (list(map(min_max_rate, times)) for times in (one.one_whole, one.two_wholes))
        rows.append(
            (
                one.model,
                "best",
                number(median(split)),
                number(median(whole)),
                f"{median_ratio(split, whole):.2f}×",
                f"{median_ratio(split, alone):.2f} of {number(median(alone))}",
                f"{median_ratio(split, together):.2f}",
                f"{STAGES * median_ratio(two_wholes, one_whole):.2f}×",
            )
        )
    columns = (
        "model",
        "callers",
        "2 stages, rows/s",
        "whole ×1, rows/s",
        "× whole",
        "of min-max",
        "of min-max, both busy",
        "two wholes in processes",
    )
    note = (
        "One thread per stage process. Min-max: the slowest stage alone in a process, at its best batch size; 'both busy': timed "
        "while the other stage runs on the other core. 'Two wholes': what two processes that each run the whole model on a core of "
        "their own, without any server, reach together, of what one does alone: what this machine gives at most. "
        "Ratios are taken within each round, at the number of callers that is best for each, then their median. "
        "Goals: ≥ 1.7 × whole, ≥ 0.9 of min-max."
    )
    return Table("Two stages against the whole", columns, tuple(rows), note)


def latency(found: list[Measured]) -> Table:
    """One caller's median against the stages' own times."""
    rows = []
    for one in found:
        alone = sum(times[1] for times in median_times(one.alone))
        in_turn = median(map(sum, one.in_turn))
        split, whole = (one.cells[Key(one.model, system, 1)].p50_ms for system in ("split", "whole"))
        added = median(
            sample.p50_ms - sum(one.in_turn[sample.round])
            for sample in one.samples
            if sample.key == Key(one.model, "split", 1)
        )
        rows.append((one.model, number(alone), number(in_turn), number(split), number(whole), f"{added:+.2f}"))
    columns = ("model", "stages alone, ms", "in turn, ms", "2 stages, p50 ms", "whole, p50 ms", "added to in turn, ms")
    note = (
        "One caller. Alone: each stage runs all the time. In turn: one after the other, as one caller's requests pass them, without "
        f"a network. Goal: at most {HOP_MS} ms a hop, and there are {STAGES}: router to stage, stage to stage."
    )
    return Table("Latency of two stages", columns, tuple(rows), note)


def prediction(found: list[Measured]) -> Table:
    """Planned against measured stage times, at one row."""
    rows = []
    for one in found:
        for stage in one.plan.stages:
            real = one.planned[stage.index][1]
            error = stage.compute_ms / real - 1
            rows.append((one.model, str(stage.index), f"{stage.compute_ms:.2f}", f"{real:.2f}", f"{error:+.1%}"))
    columns = ("model", "stage", "planned ms", "measured ms", "error")
    return Table(
        "Planned against measured stage times",
        columns,
        tuple(rows),
        "One row, measured in processes right after planning: the machine's speed changes. Goal: at most 15 %.",
    )


def filling(found: list[Measured]) -> Table:
    """A request of many micro-batches: how near it comes to (M + S - 1) times the slowest stage."""
    rows = []
    for one in found:
        fill = one.fill
        ideal = (fill.parts + STAGES - 1) / fill.parts
        rows.append(
            (
                one.model,
                str(LARGE_ROWS[one.model]),
                f"{fill.parts} × {fill.rows}",
                number(fill.took_ms),
                f"{fill.took_ms / (fill.parts * fill.slowest_ms):.2f}",
                f"{ideal:.2f}",
                number(1e3 * LARGE_ROWS[one.model] / fill.took_ms),
            )
        )
    columns = ("model", "rows", "micro-batches", "took ms", "of M × slowest", "ideal (M+S-1)/M", "rows/s")
    note = "Slowest: the slower stage in a process at that batch size, while the other stage runs, too."
    return Table("One large request fills the pipeline", columns, tuple(rows), note)
