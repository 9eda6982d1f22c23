"""`serve`: what is checked first, the supervisor's run, and what a user sees of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from shardline.cli.failure import EXIT_USAGE, Failure
from shardline.cli.render import duration_text, print_table
from shardline.local.child import describe_event, parse_event
from shardline.local.failure import ClusterFailed
from shardline.local.options import ClusterOptions, load_settings
from shardline.local.preflight import check_models
from shardline.local.supervisor import Supervisor
from shardline.local.wishes import parse_wishes, wanted_splits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress, TaskID

    from shardline.local.reporter import FirstAnswer
    from shardline.ops.settings import ClusterSettings

_ACCESS_EVENT = "request"
_LEVELS = ("debug", "info", "warning", "error", "critical")


class Output(Enum):
    """How much a user sees. PEOPLE: progress, notices, warnings. QUIET: errors. LINES: every line, as JSON."""

    PEOPLE = "people"
    QUIET = "quiet"
    LINES = "lines"

    @classmethod
    def of(cls, *, quiet: bool, json_logs: bool) -> Output:
        """From the flags. Raises Failure (usage) where they contradict each other."""
        if quiet and json_logs:
            raise Failure("--quiet and --json-logs contradict each other", EXIT_USAGE)
        return cls.QUIET if quiet else cls.LINES if json_logs else cls.PEOPLE


@dataclass(frozen=True, slots=True)
class Selection:
    """Which models are served, and how. stages, stage_replicas: `MODEL=…` as given; estimate: times of plans are guessed."""

    models: tuple[str, ...] = ()
    keep_going: bool = False
    stages: tuple[str, ...] = ()
    stage_replicas: tuple[str, ...] = ()
    estimate: bool = False


def serve_cluster(flags: Mapping[str, Any], selection: Selection, output: Output) -> None:
    """Run a cluster until a signal ends it. Raises Failure where it cannot start."""
    terminal = Terminal(output)
    try:
        wishes = parse_wishes(selection.stages, selection.stage_replicas)
        settings = load_settings(**flags)
        checked = check_models(settings.repository, selection.models, keep_going=selection.keep_going)
        for line in checked.left_out:
            terminal.notice(f"left out: {line}")
        options = ClusterOptions(
            settings,
            checked.limit_to,
            all_lines=output is Output.LINES,
            splits=wanted_splits(checked.stages, wishes),
            versions=checked.versions,
            plan_estimate=selection.estimate,
        )
        _configure_logs(settings, output)
        with terminal:
            asyncio.run(_supervise(Supervisor(options, checked.models, terminal)))
    except ClusterFailed as failure:
        raise Failure(str(failure)) from failure
    except KeyboardInterrupt:
        raise Failure("interrupted") from None


def _configure_logs(settings: ClusterSettings, output: Output) -> None:
    """Our own log lines go where the children's go; people read notices instead."""
    if output is Output.LINES:
        # Here, since only this mode needs it, and it costs start-up time.
        from shardline.ops import logs

        logs.configure(settings.model_copy(update={"log_format": "json"}), "supervisor")
    else:
        logging.getLogger().addHandler(logging.NullHandler())


async def _supervise(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


class Terminal:
    """Shows a cluster's life: the table on standard output, everything else on standard error.

    On a terminal, steps are progress bars; elsewhere each change is a line.
    """

    def __init__(self, output: Output, stream: TextIO | None = None) -> None:
        self._output = output
        self._stream = sys.stderr if stream is None else stream
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._started_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._output is Output.PEOPLE and self._stream.isatty():
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bars()

    def progress(self, step: str, done: int, total: int) -> None:
        """A step of the start: `done` of `total`."""
        if self._last.get(step) == (done, total) or self._output is Output.QUIET:
            return
        self._last[step] = (done, total)
        if self._bars is None:
            self.notice(f"{step}: {done} of {total}")
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total)
        self._bars.update(self._tasks[step], completed=done, total=total)

    def ready(self, settings: ClusterSettings, answers: tuple[FirstAnswer, ...]) -> None:
        """Every model answered: the table, and what to do next."""
        self._stop_bars()
        columns = ("model", "version", "stages", "replicas", "device", "endpoint", "answer", "latency")
        print_table(columns, [answer_row(answer) for answer in answers])
        if self._output is Output.PEOPLE:
            took = duration_text(time.monotonic() - self._started_at)
            model, endpoint = answers[0].model, answers[0].endpoint
            self._write(f"Ready after {took}; serving until Ctrl-C. Try: {own_command()} infer {model}")
            if settings.metrics_port > 0:
                host = endpoint.rpartition(":")[0]
                self._write(f"Metrics: http://{host}:{settings.metrics_port}/metrics")
        sys.stdout.flush()

    def notice(self, text: str) -> None:
        """Something a user should know."""
        if self._output is Output.LINES:
            self._write(_as_event("supervisor", text))
        elif self._output is Output.PEOPLE:
            self._write(text)

    def line(self, child: str, line: str) -> None:
        """One line that a child wrote."""
        if self._output is Output.LINES:
            self._write(line if parse_event(line) else _as_event(child, line))
            return
        shown = line_for_people(line, "warning" if self._output is Output.PEOPLE else "error")
        if shown is not None:
            self._write(f"{child}: {shown}")

    def _write(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def own_command() -> str:
    """How this program is called from the present folder: `shardline` where that is found, else its path."""
    called = Path(sys.argv[0])
    if called.name != "shardline" or not called.exists():
        return "shardline"
    found = shutil.which("shardline")
    return "shardline" if found and Path(found).samefile(called) else os.path.relpath(called)


def line_for_people(line: str, least: str) -> str | None:
    """A child's line in words; None for what is not shown.

    That is what is below `least`, requests' own lines (their callers know), and what is no log event (tracebacks, what
    Redis says): if it led to the child's end, the notice of that end tells it.
    """
    event = parse_event(line)
    if event is None:
        return None
    level = str(event.get("level", "info"))
    if event.get("event") == _ACCESS_EVENT or _severity(level) < _severity(least):
        return None
    return f"{level}: {describe_event(event)}"


def _as_event(process: str, text: str) -> str:
    return json.dumps({"event": "output", "level": "info", "process": process, "message": text})


def answer_row(answer: FirstAnswer) -> tuple[str, ...]:
    """A row of the table."""
    return (
        answer.model,
        answer.version,
        str(len(answer.replicas)),
        "+".join(map(str, answer.replicas)),
        answer.device,
        answer.endpoint,
        answer.answer,
        "–" if answer.latency_s is None else duration_text(answer.latency_s),
    )


def _make_bars() -> Progress:
    # Here, since only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _severity(level: str) -> int:
    return _LEVELS.index(level) if level in _LEVELS else len(_LEVELS)
