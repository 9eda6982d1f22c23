"""`python -m loadtests.soak`: hours in minutes. Load for at least 10 minutes and 2 million requests; memory must stay flat.

Models take turns in slices of a few seconds; each slice opens new connections and drops them in mid-flight at its end, as
clients do. Resident memory of every server process is sampled once a second. Ends with 1 when a call failed, a process
was replaced, or memory is not flat by the rule of `loadtests.flatness`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from loadtests import soak_plot
from loadtests.bench import closedloop, models
from loadtests.bench.matrix import checked_answer_bytes, empty_answers
from loadtests.bench.processes import ServerFailed, end_on_sigterm
from loadtests.bench.systems import SYSTEMS, Endpoint
from loadtests.cluster import local_cluster
from loadtests.flatness import FEWEST_SAMPLES, Flatness, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.bench.processes import Tree

_SLICE_S = 5.0
_LONGEST = 4.0
"""The soak gives up the wanted number of requests after this many times its seconds."""


@dataclass(slots=True)
class Memory:
    """Resident bytes of every process, by its title, one sample a second. at_s: when, since the start."""

    at_s: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def sample(self, tree: Tree, at_s: float) -> None:
        """Add one sample of each living process."""
        self.at_s.append(at_s)
        for process in tree.members():
            try:
                self.resident[_title(process)].append(float(process.memory_info().rss))
            except psutil.NoSuchProcess:
                continue

    def verdicts(self) -> dict[str, Flatness | None]:
        """Per process; None for one that was not there all the time (it died, or was replaced)."""
        needed = max(FEWEST_SAMPLES, int(0.9 * len(self.at_s)))
        return {title: judge(series) if len(series) >= needed else None for title, series in self.resident.items()}


def _title(process: psutil.Process) -> str:
    """Program and pid, so that a replaced process is another one."""
    words = process.cmdline()
    names = [word for word in words if not word.startswith("-") and "/" not in word][:1]
    program = words[0].rsplit("/", 1)[-1] if words else "?"
    module = next((after for word, after in itertools.pairwise(words) if word == "-m"), "")
    return f"{module or ' '.join([program, *names])} [{process.pid}]"


@dataclass(slots=True)
class Traffic:
    """What was sent, by model."""

    answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: int = 0

    @property
    def total(self) -> int:
        """All answers."""
        return sum(self.answered.values())


def soak(endpoints: Sequence[Endpoint], options: argparse.Namespace, console: Console) -> tuple[Memory, Traffic]:
    """Load until both goals are met, or for `_LONGEST` times the seconds. Raises ServerFailed on a wrong answer."""
    memory, traffic, over = Memory(), Traffic(), threading.Event()
    begin = time.monotonic()

    def watch() -> None:
        while not over.wait(1.0):
            memory.sample(endpoints[0].tree, time.monotonic() - begin)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    columns = (TextColumn("{task.description:<44}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=1.0)
            number = 0
            while (share := _progress(traffic.total, time.monotonic() - begin, options)) < 1.0:
                _slice(endpoints[number % len(endpoints)], options.callers, traffic)
                number += 1
                progress.update(task, completed=share, description=f"{traffic.total:,} requests")
    finally:
        over.set()
        watcher.join(10)
    return memory, traffic


def _progress(requests: int, elapsed_s: float, options: argparse.Namespace) -> float:
    """1 when the soak is over: both goals reached, or time to give up."""
    if elapsed_s >= _LONGEST * options.seconds:
        return 1.0
    return min(elapsed_s / options.seconds, requests / options.requests if options.requests else 1.0)


def _slice(endpoint: Endpoint, callers: int, traffic: Traffic) -> None:
    answer_bytes = checked_answer_bytes(endpoint)
    load = closedloop.drive(endpoint, callers, _SLICE_S)
    traffic.answered[endpoint.model.name] += load.answered
    traffic.failed += load.failed + empty_answers(load.answered, load.body_bytes, answer_bytes)


def show(console: Console, verdicts: dict[str, Flatness | None], traffic: Traffic, seconds: float) -> None:
    """Verdicts as a table."""
    table = Table(title=f"{traffic.total:,} requests in {seconds:.0f} s, {traffic.failed} failed", box=box.SIMPLE_HEAD)
    for column in ("process", "early MB", "late MB", "growth MB", "allowed MB", "flat"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for title, verdict in verdicts.items():
        if verdict is None:
            table.add_row(title, "–", "–", "–", "–", "was replaced")
            continue
        values = (verdict.early_bytes, verdict.late_bytes, verdict.growth_bytes, verdict.allowed_bytes)
        table.add_row(title, *(f"{value / 1e6:.1f}" for value in values), "yes" if verdict.flat else "NO")
    console.print(table)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="at least so long")
    parser.add_argument("--requests", type=int, default=2_000_000, help="and at least so many (0: as many as fit)")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--models", default="digits,digits,digits,minilm,identity_image", help="turns, in this order")
    parser.add_argument("--front", default="native", choices=("native", "grpcio"))
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--source", type=Path, default=Path("build/models"))
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    return parser.parse_args(arguments)


def _prepare(options: argparse.Namespace) -> list[models.BenchModel]:
    names: list[str] = options.models.split(",")
    repository = options.out / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    made = {name: models.prepare(name, options.source, options.out, repository) for name in dict.fromkeys(names)}
    return [made[name] for name in names]


def main() -> int:
    """0 when every call was answered and memory is flat."""
    end_on_sigterm()
    options, console = parse(), Console()
    serve = ["--front", options.front, "--replicas", str(options.replicas)]
    begin = time.monotonic()
    try:
        turns = _prepare(options)
        with local_cluster(options.out / "repository", options.out / "cluster.log", serve) as cluster:
            system, port = SYSTEMS[f"{options.front}-1"], int(cluster.url.rpartition(":")[2])
            if cluster.tree is None:
                raise ServerFailed("it has no processes to watch")
            begin = time.monotonic()
            memory, traffic = soak([Endpoint(system, model, port, cluster.tree) for model in turns], options, console)
            seconds = time.monotonic() - begin
    except (ServerFailed, FileNotFoundError, closedloop.GeneratorFailed) as error:
        console.print(f"the soak ended after {time.monotonic() - begin:.0f} s: {error}", highlight=False)
        return 2
    verdicts = memory.verdicts()
    show(console, verdicts, traffic, seconds)
    _write(options.out, memory, traffic, verdicts, seconds)
    console.print(f"wrote {options.out}/soak.json and soak.png", highlight=False)
    enough = traffic.total >= options.requests
    if not enough:
        console.print(f"{traffic.total:,} requests are fewer than the {options.requests:,} wanted")
    flat = bool(verdicts) and all(verdict is not None and verdict.flat for verdict in verdicts.values())
    return 0 if flat and enough and not traffic.failed else 1


def _write(out: Path, memory: Memory, traffic: Traffic, verdicts: dict[str, Flatness | None], seconds: float) -> None:
    data = {
        "seconds": seconds,
        "answered": dict(traffic.answered),
        "failed": traffic.failed,
        "at_s": memory.at_s,
        "resident_bytes": dict(memory.resident),
        "verdicts": {title: asdict(verdict) if verdict else None for title, verdict in verdicts.items()},
    }
    (out / "soak.json").write_text(json.dumps(data, indent=1) + "\n")
    soak_plot.draw(out / "soak.png", memory.at_s, memory.resident, f"{traffic.total:,} requests in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
