"""What a cluster costs that nobody calls: one router, two replicas, Redis and the supervisor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from loadtests.bench.processes import ServerFailed
from loadtests.bench.sections import Skipped
from loadtests.bench.systems import SYSTEMS, start
from loadtests.bench.tables import Table, number

if TYPE_CHECKING:
    from loadtests.bench.processes import Tree
    from loadtests.bench.sections import Setting

_SETTLE_S = 3.0
_WATCH_S = 20.0


def measure(setting: Setting) -> list[Table]:
    """CPU use in percent of one core over a quiet stretch, per front and process."""
    rows: list[tuple[str, ...]] = []
    model = setting.model("digits")
    for key in ("native-2", "grpcio-2"):
        setting.say(f"idle: {SYSTEMS[key].label}")
        try:
            with start(SYSTEMS[key], model, setting.work) as endpoint:
                time.sleep(_SETTLE_S)
                rows += _watch(SYSTEMS[key].label, endpoint.tree)
        except ServerFailed as error:
            raise Skipped(str(error)) from error
    columns = ("configuration", "process", "CPU, % of a core", "memory MB")
    note = f"Over {_WATCH_S:g} s without a call. Goal: all together below 2 %."
    return [Table("An idle cluster: one router, two replicas", columns, tuple(rows), note)]


def _watch(label: str, tree: Tree) -> list[tuple[str, ...]]:
    before = {process.pid: _cpu_s(process) for process in tree.members()}
    time.sleep(_WATCH_S)
    rows: list[tuple[str, ...]] = []
    total = 0.0
    for process in tree.members():
        used = 100 * (_cpu_s(process) - before.get(process.pid, 0.0)) / _WATCH_S
        total += used
        rows.append((label, _title(process), f"{used:.2f}", number(process.memory_full_info().pss / 1e6)))
    rows.append((label, "all", f"{total:.2f}", number(tree.memory_bytes() / 1e6)))
    return rows


def _cpu_s(process: object) -> float:
    times = process.cpu_times()  # type: ignore[attr-defined]
    return float(times.user + times.system)


def _title(process: object) -> str:
    """The end of the command line that tells our processes apart."""
    words: list[str] = process.cmdline()  # type: ignore[attr-defined]
    names = [word for word in words[1:] if not word.startswith("-")][:2]
    return " ".join([words[0].rsplit("/", 1)[-1], *(name.rsplit("/", 1)[-1] for name in names)])[:40] if words else "?"
