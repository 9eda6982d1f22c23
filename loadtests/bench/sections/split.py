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
    from collections.abc import Mapping
    from pathlib import Path

    from loadtests.bench.models import BenchModel
    from loadtests.bench.results import Cell
    from loadtests.bench.sections import Setting
    from shardline.partition.plan import Plan

STAGES = 2
CALLERS = (1, 2, 4, 8, 16)
BATCHES = {"resnet50": (1, 2, 4, 8), "minilm": (1, 2, 4, 8, 16, 32)}
LARGE_ROWS = {"resnet50": 32, "minilm": 128}
HOP_MS = 1.5
_PLAN_S = 300.0
_ONE_THREAD = (("SHARDLINE_THREADS", "1"),)


@dataclass(frozen=True, slots=True)
class Fill:
    """A large request in a pipeline. parts: micro-batches, of `rows` rows; took_ms: median over calls."""

    parts: int
    rows: int
    took_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of one model. alone, together: in-process milliseconds by stage and rows, one stage at a time and all at once."""

    model: str
    plan: Plan
    alone: Mapping[int, Mapping[int, float]]
    together: Mapping[int, Mapping[int, float]]
    cells: Mapping[Key, Cell]
    fill: Fill

    def rate(self, system: str) -> float:
        """Rows per second at the best number of callers."""
        return max(cell.rate for key, cell in self.cells.items() if key.system == system)

    def min_max_rate(self, times: Mapping[int, Mapping[int, float]]) -> float:
        """Rows per second of the slowest stage, at the batch size that is best for it."""
        return max(1e3 * rows / max(of_stage[rows] for of_stage in times.values()) for rows in times[0])


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
    rows, seconds = BATCHES[model.name], setting.pace.seconds / 2
    setting.say(f"split {model.name}: stages in process")
    alone = {stage: stagetimes.measure(folder, model.path, [stage], rows, seconds)[stage] for stage in range(STAGES)}
    together = stagetimes.measure(folder, model.path, range(STAGES), rows, seconds)
    missing: list[str] = []
    samples = list(
        measure_model(
            model, (split, whole), CALLERS, setting.pace, setting.work, skipped=missing.append, step=setting.say
        )
    )
    measured = cells(samples)
    if {key.system for key in measured} != {"split", "whole"}:
        raise Skipped("; ".join(missing))
    setting.say(f"split {model.name}: a large request")
    with start(split, model, setting.work) as endpoint:
        fill = asyncio.run(_fill(model, endpoint.port, LARGE_ROWS[model.name], setting.pace.seconds * 2))
    return Measured(model.name, load_plan(folder), alone, together, measured, fill)


def _plan(model: BenchModel, folder: Path) -> None:
    """Two measured stages, as `shardline plan` makes them."""
    command = [sys.executable, "-m", "shardline.cli", "plan", str(model.path), "--stages", str(STAGES)]
    command += ["--threads", "1", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PLAN_S, check=False)
    if done.returncode:
        raise Skipped(done.stderr.strip() or done.stdout.strip())


async def _fill(model: BenchModel, port: int, rows: int, seconds: float) -> Fill:
    """One caller with large requests, for so many seconds. The server's statistics tell how many batches they became."""
    inputs = sample_inputs(load(str(model.path), 1), rows)
    times: list[float] = []
    async with InferenceClient(f"127.0.0.1:{port}", timeout_s=60) as client:
        (before,) = await client.statistics(model.name)
        until = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < until:
            times.append((await client.infer(model.name, inputs)).latency_s)
        (after,) = await client.statistics(model.name)
    parts = max(1, round((after.execution_count - before.execution_count) / len(times)))
    return Fill(parts, -(-rows // parts), 1e3 * median(times))


def throughput(found: list[Measured]) -> Table:
    """Both systems at each number of callers, and the two goals at the best one."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        for callers in CALLERS:
            pair = [one.cells.get(Key(one.model, system, callers)) for system in ("split", "whole")]
            rates = ("–" if cell is None else number(cell.rate) for cell in pair)
            rows.append((one.model, str(callers), *rates, "", "", ""))
        best, reference = one.rate("split"), one.min_max_rate(one.alone)
        rows.append(
            (
                one.model,
                "best",
                number(best),
                number(one.rate("whole")),
                f"{best / one.rate('whole'):.2f}×",
                f"{best / reference:.2f} of {number(reference)}",
                f"{best / one.min_max_rate(one.together):.2f}",
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
    )
    note = (
        "One thread per stage process. Min-max: the slowest stage alone in a process, at its best batch size; 'both busy': timed "
        "while the other stage runs on the other core. Goals: ≥ 1.7 × whole, ≥ 0.9 of min-max."
    )
    return Table("Two stages against the whole", columns, tuple(rows), note)


def latency(found: list[Measured]) -> Table:
    """One caller's median against the stages' own times."""
    rows = []
    for one in found:
        stages = sum(times[1] for times in one.alone.values())
        p50 = one.cells[Key(one.model, "split", CALLERS[0])].p50_ms
        bound = stages + HOP_MS * STAGES
        rows.append((one.model, number(stages), number(p50), f"{p50 - stages:+.2f}", f"≤ {bound:.2f}"))
    columns = ("model", "stages alone, ms", "p50 at one caller, ms", "added ms", "goal ms")
    note = f"Hops: router to stage, stage to stage, each {HOP_MS} ms at most."
    return Table("Latency of two stages", columns, tuple(rows), note)


def prediction(found: list[Measured]) -> Table:
    """Planned against measured stage times, at one row."""
    rows = []
    for one in found:
        for stage in one.plan.stages:
            real = one.alone[stage.index][1]
            error = stage.compute_ms / real - 1
            rows.append((one.model, str(stage.index), f"{stage.compute_ms:.2f}", f"{real:.2f}", f"{error:+.1%}"))
    columns = ("model", "stage", "planned ms", "measured ms", "error")
    return Table("Planned against measured stage times", columns, tuple(rows), "Goal: at most 15 %.")


def filling(found: list[Measured]) -> Table:
    """A request of many micro-batches: how near it comes to (M + S - 1) times the slowest stage."""
    rows = []
    for one in found:
        fill = one.fill
        known = {size: max(times[size] for times in one.together.values()) for size in one.together[0]}
        slowest = known.get(fill.rows) or known[1] * fill.rows
        ideal = (fill.parts + STAGES - 1) / fill.parts
        rows.append(
            (
                one.model,
                str(LARGE_ROWS[one.model]),
                f"{fill.parts} × {fill.rows}",
                number(fill.took_ms),
                f"{fill.took_ms / (fill.parts * slowest):.2f}",
                f"{ideal:.2f}",
                number(1e3 * LARGE_ROWS[one.model] / fill.took_ms),
            )
        )
    columns = ("model", "rows", "micro-batches", "took ms", "of M × slowest", "ideal (M+S-1)/M", "rows/s")
    note = "Slowest: the slower stage in a process at that batch size, while the other stage runs, too."
    return Table("One large request fills the pipeline", columns, tuple(rows), note)
