"""Ends: signals, a parent that died, and what is in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shardline.core.deadline import NEVER, Deadline
from shardline.ops.lifecycle import InFlight, Lifecycle, ending_with_parent, until

LIMIT_S = 20.0


async def test_the_first_signal_drains_and_the_second_ends_the_process() -> None:
    exits: list[int] = []
    lifecycle = Lifecycle(exits.append)
    with lifecycle.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            await lifecycle.draining.wait()
        assert (lifecycle.reason, exits) == ("SIGTERM", [])
        os.kill(os.getpid(), signal.SIGINT)
        assert await until(lambda: bool(exits), Deadline.after(LIMIT_S))
    assert exits == [128 + signal.SIGINT]
    assert lifecycle.reason == "SIGTERM"


async def test_a_parent_that_is_gone_drains() -> None:
    lifecycle = Lifecycle()
    async with asyncio.timeout(LIMIT_S):
        await lifecycle.watch_parent(os.getpid())  # it is not our parent, as if ours had died
    assert lifecycle.draining.is_set()
    assert str(os.getpid()) in lifecycle.reason


async def test_no_parent_is_watched_unless_asked() -> None:
    lifecycle = Lifecycle()
    async with asyncio.timeout(LIMIT_S):
        await lifecycle.watch_parent(0)
    assert not lifecycle.draining.is_set()


async def test_draining_waits_for_what_is_in_flight() -> None:
    in_flight = InFlight()
    release = asyncio.Event()

    async def work() -> None:
        with in_flight:
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(work())
        await asyncio.sleep(0)
        assert in_flight.count == 3
        assert not await in_flight.drained(Deadline.after(0.01))
        release.set()
        assert await in_flight.drained(NEVER)
    assert in_flight.count == 0


async def test_work_that_fails_is_in_flight_no_more() -> None:
    in_flight = InFlight()
    try:
        with in_flight:
            raise ValueError
    except ValueError:
        assert await in_flight.drained(Deadline.after(0))


async def test_until_gives_up_at_its_deadline() -> None:
    assert not await until(lambda: False, Deadline.after(0.02), every_s=0.001)
    assert await until(lambda: True, Deadline.after(0))


PARENT = """
import subprocess, sys, time
from shardline.ops.lifecycle import ending_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=ending_with_parent())
print(child.pid, flush=True)
time.sleep(600)
"""

OWN_CHILD = """
import os, subprocess, sys, time
code = (
    "import os, time\\nfrom shardline.ops.lifecycle import end_with_parent\\n"
    "assert end_with_parent(int(os.environ['PARENT']))\\nprint(os.getpid(), flush=True)\\ntime.sleep(600)"
)
child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PARENT": str(os.getpid())})
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process is gone; one that nobody has waited for counts as gone, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def child_of_killed_parent(code: str) -> int:
    """Start a parent that starts a child, kill the parent with -9, return the child's process id."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
        finally:
            parent.kill()
    return child


def ends_soon(pid: int) -> bool:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if gone(pid):
            return True
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return False


def test_a_foreign_program_ends_with_the_parent_that_was_killed() -> None:
    assert ends_soon(child_of_killed_parent(PARENT))


def test_a_process_of_ours_ends_with_the_parent_that_was_killed() -> None:
    assert ends_soon(child_of_killed_parent(OWN_CHILD))


def test_a_program_whose_parent_is_already_gone_does_not_start(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    before_exec = ending_with_parent()  # its parent should be this process, but a middle one starts the program
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    middle = os.fork()
    if middle == 0:  # as a parent's child, forked, whose parent is not the one it was made for
        inner = os.fork()
        if inner == 0:
            before_exec()
            os.execv(sys.executable, [sys.executable, "-c", code])
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status))
    _, status = os.waitpid(middle, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert not mark.exists()
