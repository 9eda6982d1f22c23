"""`python -m loadtests.bench`: measure, print, write build/bench/report.{json,md,html} and report.png."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.bench import limit, models, plot, report, results, tables
from loadtests.bench.closedloop import can_drive, generator_name
from loadtests.bench.matrix import Pace, measure_model
from loadtests.bench.peers import NotInstallable, environment
from loadtests.bench.processes import end_on_sigterm
from loadtests.bench.sections import Setting, Skipped, accounting, idle, perf_analyzer, split
from loadtests.bench.systems import DEFAULT, SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtests.bench.limit import Point
    from loadtests.bench.models import BenchModel
    from loadtests.bench.results import Sample
    from loadtests.bench.systems import System
    from loadtests.bench.tables import Table

SECTIONS: dict[str, Callable[[Setting], list[Table]]] = {
    "idle": idle.measure,
    "accounting": accounting.measure,
    "perf_analyzer": perf_analyzer.measure,
    "split": split.measure,
}
_PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
LABELS = {system.key: system.label for system in SYSTEMS.values()}


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; --quick shortens what is not set."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    add = parser.add_argument
    add("--models", type=_words, default=list(models.ALL), help=f"comma-separated, of {', '.join(models.ALL)}")
    add("--systems", type=_words, default=list(DEFAULT), help=f"comma-separated, of {', '.join(SYSTEMS)}")
    add("--callers", type=_words, default=["1", "8", "32", "64"], help="concurrent callers, comma-separated")
    add("--rounds", type=int, help="interleaved rounds; medians are reported (3, quick: 1)")
    add("--duration", type=float, help="measured seconds per cell and round (4, quick: 1.5)")
    add("--sections", type=_words, default=list(SECTIONS), help=f"comma-separated, of {', '.join(SECTIONS)}, or none")
    add("--quick", action="store_true", help="one short round: shows that all works, proves no figure")
    add("--source", type=Path, default=Path("build/models"), help="the example models")
    add("--out", type=Path, default=Path("build/bench"), help="where reports, logs and bodies go")
    add("--publish", action="store_true", help="also put tables and picture into docs/performance.md")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.duration = options.duration or (1.5 if options.quick else 4.0)
    options.callers = [int(count) for count in options.callers]
    known = (("models", models.ALL), ("systems", SYSTEMS), ("sections", [*SECTIONS, "none"]))
    for name, allowed in known:
        unknown = [word for word in getattr(options, name) if word not in allowed]
        if unknown:
            parser.error(f"--{name}: {', '.join(unknown)} is none of {', '.join(allowed)}")
    return options


class Run:
    """One benchmark: what is found, what was skipped and why, and the files at the end."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.pace = Pace(options.rounds, options.duration, 0.3 if options.quick else 1.5)
        self.about = report.facts({name: str(value) for name, value in vars(options).items()})
        self.samples: list[Sample] = []
        self.points: dict[str, list[Point]] = {}
        self.skipped: list[str] = []
        self.extra: list[Table] = []

    def skip(self, reason: str) -> None:
        """Remember and show what is not measured."""
        self.skipped.append(reason)
        self.console.print(f"[yellow]skipped[/] {reason}", highlight=False)

    def usable_systems(self) -> list[System]:
        """The chosen systems that can be started and driven here."""
        chosen = [SYSTEMS[key] for key in self.options.systems]
        usable = []
        for system in chosen:
            if not can_drive(system.grpc):
                self.skip(f"{system.label}: it needs h2load (package nghttp2-client)")
                continue
            if system.key == "mosec":
                try:
                    with self.console.status("installing mosec into an environment of its own"):
                        environment("mosec", self.options.out.parent)
                except NotInstallable as error:
                    self.skip(f"{system.label}: {error}")
                    continue
            usable.append(system)
        return usable

    def usable_models(self) -> list[BenchModel]:
        """The chosen models that exist."""
        found = []
        for name in self.options.models:
            try:
                found.append(models.prepare(name, self.options.source, self.options.out))
            except FileNotFoundError as error:
                self.skip(f"{name}: {error}")
        return found

    def measure(self) -> None:
        """All parts, with one progress bar over all steps."""
        systems, chosen = self.usable_systems(), self.usable_models()
        sections = [name for name in self.options.sections if name != "none"]
        cells = len(systems) * len(self.options.callers) * self.pace.rounds
        columns = (TextColumn("{task.description:<52}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as progress:
            task = progress.add_task("starting", total=len(chosen) * (cells + 1) + len(sections))

            def step(text: str) -> None:
                progress.update(task, advance=1, description=text)

            def say(text: str) -> None:
                progress.update(task, description=text)

            for model in chosen:
                say(f"{model.name} · ONNX Runtime in process")
                self.points[model.name] = limit.measure(model.path, min(1.0, self.pace.seconds / 2))
                step(f"{model.name} · starting the servers")
                measuring = measure_model(
                    model, systems, self.options.callers, self.pace, self.options.out, skipped=self.skip, step=step
                )
                self.samples += measuring
            setting = Setting({model.name: model for model in chosen}, self.pace, self.options.out, say)
            for name in sections:
                try:
                    self.extra += SECTIONS[name](setting)
                except Skipped as reason:
                    self.skip(f"{name}: {reason}")
                step(name)

    def show(self) -> None:
        """Tables on the terminal, files on disk."""
        measured = results.cells(self.samples)
        best = {name: limit.best(points) for name, points in self.points.items()}
        ratios = {baseline: results.ratios(self.samples, baseline) for baseline in ("plain", "mosec")}
        ratios["limit"] = {key: cell.rate / best[key.model].rate for key, cell in measured.items()}
        names = list(dict.fromkeys(key.model for key in measured))
        shown = [tables.matrix(name, measured, ratios, LABELS, best.get(name)) for name in names]
        candidates = [system.key for system in SYSTEMS.values() if system.front]
        judged = results.verdicts(results.GOALS, ratios, candidates)
        if judged:
            shown.append(tables.goals(judged, LABELS))
        shown += [tables.overhead(measured, self.points, LABELS), tables.limits(self.points), *self.extra]
        shown = [table for table in shown if table.rows]
        self.options.out.mkdir(parents=True, exist_ok=True)
        picture = self.options.out / "report.png" if measured else None
        if picture is not None:
            plot.draw(picture, measured, ratios["plain"], best, LABELS, report.sentence(self.about))
        paths = report.write(self.options.out, self.about, self.samples, shown, self.skipped, picture)
        if self.options.publish:
            report.publish(_PAGE, self.about, shown, picture)
        for table in shown:
            self.console.print(table.rich())
        self.console.print(f"load generator: {generator_name()}")
        for path in [*paths, *([picture] if picture else [])]:
            self.console.print(f"wrote {path}", highlight=False)


def main() -> int:
    """0 when something was measured and every answer was right."""
    end_on_sigterm()
    options = parse()
    run = Run(options, Console(width=None if sys.stdout.isatty() else 170))
    with suppress(KeyboardInterrupt):
        run.measure()
    run.show()
    return 0 if run.samples and not any(sample.wrong for sample in run.samples) else 1


if __name__ == "__main__":
    sys.exit(main())
