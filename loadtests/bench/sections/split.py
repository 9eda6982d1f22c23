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
    from shardline.wire.client import Answer

STAGES = 2
CALLERS = {"resnet50": (1, 4, 8, 16), "minilm": (1, 8, 32, 64)}
_STAGES_TIMED_AT = 8
"""Callers of the sample of each round after which the stages are timed in a process: in its middle."""
BATCHES = {"resnet50": (1, 2, 4, 8), "minilm": (1, 2, 4, 8, 16, 32)}
LARGE_ROWS = {"resnet50": 16, "minilm": 64}
"""Few enough that the receipt of as many micro-batches has room in an answer's metadata."""
HOP_MS = 1.5
_LEAST_CALLS = 5
_PLAN_S = 300.0
_ONE_THREAD = (("SHARDLINE_THREADS", "1"),)


@dataclass(frozen=True, slots=True)
class Fill:
    """A large request in a pipeline: medians over calls. parts: micro-batches. took_ms: of a call.

    of_slowest: a call's time over what its slowest stage computed for it. alone_ms: the slowest stage in a process for as many
    micro-batches of as many rows, while the other stage runs, too.
    """

    parts: int
    took_ms: float
    of_slowest: float
    alone_ms: float


Times = list[dict[int, float]]
"""Milliseconds by rows of a batch, for each stage."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of one model.

    alone, together, in_turn: stages in processes, by round: one stage only, all at once, one after the other (one row).
    one_whole, two_wholes: the whole model in a process, and in two at once, by round. predicted: by round, for each stage of a
    fresh plan its planned milliseconds and those in a process right after. fill: None where no receipt came whole.
    """

    model: str
    samples: Sequence[Sample]
    alone: Sequence[Times]
    together: Sequence[Times]
    in_turn: Sequence[Sequence[float]]
    one_whole: Sequence[Times]
    two_wholes: Sequence[Times]
    predicted: Sequence[Sequence[tuple[float, float]]]
    fill: Fill | None

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


def min_max_rates(rounds: Sequence[Times]) -> list[float]:
    """Rows per second of the slowest stage by round, at the batch size with the best median."""
    medians = median_times(rounds)
    best = max(medians[0], key=lambda rows: rows / max(of_stage[rows] for of_stage in medians))
    return [1e3 * best / max(of_stage[best] for of_stage in times) for times in rounds]


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

    missing: list[str] = []
    samples: list[Sample] = []
    found: dict[str, list[Times]] = {"alone": [], "together": [], "one_whole": [], "two_wholes": []}
    in_turn: list[Sequence[float]] = []
    predicted: list[Sequence[tuple[float, float]]] = []
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
            setting.say(f"split {model.name}: planning once more")
            predicted.append(_prediction(model, setting.work / "plans" / f"{model.name}-again", 2 * seconds))
    if {sample.key.system for sample in samples} != {"split", "whole"}:
        raise Skipped("; ".join(missing))
    setting.say(f"split {model.name}: a large request")
    with start(split, model, setting.work) as endpoint:
        calls = asyncio.run(_large_calls(model, endpoint.port, LARGE_ROWS[model.name], setting.pace.seconds * 2))
    fill = _fill(calls, folder, model, 2 * seconds)
    return Measured(model.name, samples, in_turn=in_turn, predicted=predicted, fill=fill, **found)


def _prediction(model: BenchModel, folder: Path, seconds: float) -> list[tuple[float, float]]:
    """A fresh plan's stages: (planned milliseconds, milliseconds in a process right after), one row."""
    _plan(model, folder)
    planned = [stage.compute_ms for stage in load_plan(folder).stages]
    real = [stagetimes.measure(folder, model.path, [stage], [1], seconds)[0][1] for stage in range(STAGES)]
    return list(zip(planned, real, strict=True))


def _plan(model: BenchModel, folder: Path) -> None:
    """Two measured stages, as `shardline plan` makes them."""
    command = [sys.executable, "-m", "shardline.cli", "plan", str(model.path), "--stages", str(STAGES)]
    command += ["--threads", "1", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PLAN_S, check=False)
    if done.returncode:
        raise Skipped(done.stderr.strip() or done.stdout.strip())


async def _large_calls(model: BenchModel, port: int, rows: int, seconds: float) -> list[Answer]:
    """One caller's large requests, one after the other, for so many seconds; those whose receipt names all micro-batches."""
    inputs = sample_inputs(load(str(model.path), 1), rows)
    answers: list[Answer] = []
    async with InferenceClient(f"127.0.0.1:{port}", timeout_s=60) as client:
        until = time.perf_counter() + seconds
        while len(answers) < _LEAST_CALLS or time.perf_counter() < until:
            answers.append(await client.infer(model.name, inputs))
    return [answer for answer in answers if all("stage" in entry for entry in answer.receipt)]


def _fill(calls: Sequence[Answer], folder: Path, model: BenchModel, seconds: float) -> Fill | None:
    if not calls:
        return None
    parts, took, ratios = [], [], []
    for call in calls:
        computed = [0.0] * STAGES
        for entry in call.receipt:
            computed[int(entry["stage"])] += int(entry["compute_us"]) / 1e3
        parts.append(len(call.receipt) // STAGES)
        took.append(1e3 * call.latency_s)
        ratios.append(took[-1] / max(computed))
    count = round(median(parts))
    rows = LARGE_ROWS[model.name]
    sizes = {rows // count, -(-rows // count)}
    slowest = stagetimes.measure(folder, model.path, range(STAGES), sorted(sizes), seconds)
    per_row = [median(ms / size for size, ms in of_stage.items()) for of_stage in slowest]
    return Fill(count, median(took), median(ratios), max(per_row) * rows)


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
        alone, together = min_max_rates(one.alone), min_max_rates(one.together)
        one_whole, two_wholes = min_max_rates(one.one_whole), min_max_rates(one.two_wholes)
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
        for stage in range(STAGES):
            planned, real = zip(*(of_round[stage] for of_round in one.predicted), strict=True)
            error = median_ratio(planned, real) - 1
            rows.append((one.model, str(stage), f"{median(planned):.2f}", f"{median(real):.2f}", f"{error:+.1%}"))
    columns = ("model", "stage", "planned ms", "measured ms", "error")
    note = "One row. A fresh plan in each round, and its stages in a process right after; medians over the rounds. Goal: at most 15 %."
    return Table("Planned against measured stage times", columns, tuple(rows), note)


def filling(found: list[Measured]) -> Table:
    """A request of many micro-batches: how near it comes to (M + S - 1) times the slowest stage."""
    rows = []
    for one in found:
        fill = one.fill
        if fill is None:
            rows.append((one.model, str(LARGE_ROWS[one.model]), "receipt too long", *["–"] * 5))
            continue
        ideal = (fill.parts + STAGES - 1) / fill.parts
        rows.append(
            (
                one.model,
                str(LARGE_ROWS[one.model]),
                str(fill.parts),
                number(fill.took_ms),
                f"{fill.of_slowest:.2f}",
                f"{ideal:.2f}",
                f"{fill.took_ms / fill.alone_ms:.2f}",
                number(1e3 * LARGE_ROWS[one.model] / fill.took_ms),
            )
        )
    columns = (
        "model",
        "rows",
        "micro-batches",
        "took ms",
        "of its slowest stage",
        "ideal (M+S-1)/M",
        "of the same in a process",
        "rows/s",
    )
    note = (
        "Took, over the time for which its slowest stage computed (from each answer's receipt); and over what the slower stage takes in "
        "a process for as many micro-batches of as many rows, while the other stage runs, too."
    )
    return Table("One large request fills the pipeline", columns, tuple(rows), note)
