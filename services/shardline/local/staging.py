"""The supervisor's side of splitting: one planning process per model, its progress shown, its result laid out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardline.local.child import Child, ChildSpec, describe_status, parse_event
from shardline.local.failure import ClusterFailed
from shardline.local.layout import CutModel, Layout, expected_processes, lay_out
from shardline.local.memory import MAPPED_OVERHEAD_BYTES, machine_bytes, mapped_limit_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.local.options import ClusterOptions
    from shardline.local.reporter import Reporter
    from shardline.local.sweeping import Sweeping
    from shardline.local.wishes import Wish

PLANNER = "planner"
"""Role of the planning process."""
_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


def cache_folder() -> Path:
    """Where stages are kept from one start to the next; it may be removed while no cluster runs."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".cache"
    return base / "shardline" / "plans"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where planning happens. folder: for temporary files; whoever made it removes it, however planning ends."""

    reporter: Reporter
    sweeping: Sweeping
    folder: Path


async def stage_models(options: ClusterOptions, models: tuple[str, ...], cores: int, bench: Bench) -> Layout:
    """Cut every model that is to be split, and decide which replicas are started.

    models: all that will be served. Raises ClusterFailed, in one line, where a model cannot be cut as asked.
    """
    replicas = options.settings.replicas
    expected = expected_processes(
        replicas, models, [(name, wish.least_stages) for name, wish in options.splits.items()]
    )
    threads = options.settings.threads or max(1, cores // max(1, expected))
    cut = []
    for model, wish in options.splits.items():
        for version in options.versions[model]:
            order = _order(options, model, version, wish, threads)
            found = await _carried_out(order, bench)
            if found["folder"]:
                cut.append((CutModel(model, version, Path(found["folder"]), tuple(found["suggested"])), wish.replicas))
            else:
                bench.reporter.notice(
                    f"{model} fits one process ({_size(order['memory_bytes'])} for each): it is not split"
                )
    return lay_out(replicas, cores, models, options.models, cut)


def _order(options: ClusterOptions, model: str, version: int, wish: Wish, threads: int) -> dict[str, Any]:
    memory, overhead = wish.stages.memory_bytes, 0
    bound = mapped_limit_bytes(options.settings.replica_memory_bytes)
    if not memory and not wish.stages.count:
        memory, overhead = (bound, MAPPED_OVERHEAD_BYTES) if bound else (machine_bytes(), 0)
    return {
        "repository": options.settings.repository,
        "model": model,
        "version": version,
        "cache": str(cache_folder()),
        "stages": wish.stages.count,
        "memory_bytes": memory,
        "overhead_bytes": overhead,
        "threads": threads,
        "estimate": options.plan_estimate,
        "plan": str(wish.plan or ""),
    }


async def _carried_out(order: Mapping[str, Any], bench: Bench) -> dict[str, Any]:
    """Run the planning process; returns its `cut`. It ends with us, whatever ends us."""
    model, reporter = order["model"], bench.reporter
    last: dict[str, Any] = {}

    def on_line(name: str, line: str) -> None:
        event = parse_event(line)
        if event is None:
            reporter.line(name, line)
        elif "step" in event:
            reporter.progress(str(event["step"]), _whole(event["done"]), _whole(event["total"]))
        elif "note" in event:
            reporter.notice(str(event["note"]))
        else:
            last.update(event)

    argv = (sys.executable, "-m", "shardline.local.cutting")
    environment = {**_QUIET, **os.environ, "TMPDIR": str(bench.folder)}
    spec = ChildSpec(PLANNER, PLANNER, argv, environment, json.dumps(order).encode())
    try:
        child = await Child.start(spec, on_line)
    except OSError as error:
        raise ClusterFailed(f"cannot run {argv[0]}: {error.strerror or error}") from error
    bench.sweeping.watch(child.pid)
    waiting = asyncio.ensure_future(child.wait())
    try:
        status = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        child.signal(signal.SIGKILL)
        await waiting
        raise
    finally:
        bench.sweeping.forget(child.pid)
    if "cut" in last:
        return dict(last["cut"])
    raise ClusterFailed(_failure(model, last, child, status))


def _failure(model: str, last: Mapping[str, Any], child: Child, status: int) -> str:
    if "error" in last:
        return f"model {model} cannot be split: {last['error']}"
    if status == -signal.SIGKILL:
        return (
            f"model {model} cannot be split here: planning it was killed, probably for the memory that the whole model needs to "
            "be compared with; split it where there is enough (`shardline plan --out FOLDER`) and serve that with "
            f"--stages {model}=FOLDER"
        )
    return f"model {model} cannot be split: planning it ended ({describe_status(status)}): {child.last_words()}"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"
