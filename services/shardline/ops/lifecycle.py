"""A process's end: signals, a parent that died, and time for what is in flight.

lifecycle = Lifecycle()
with lifecycle.signals():
    async with asyncio.TaskGroup() as group:
        group.create_task(lifecycle.watch_parent(settings.parent_pid))
        ...
        await lifecycle.draining.wait()
        await in_flight.drained(Deadline.after(settings.drain_s))
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardline.core.deadline import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from shardline.core.deadline import Deadline

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_PARENT_POLL_S = 0.5

# Loaded before any fork: a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None, use_errno=True)


class Lifecycle:
    """Whether this process should go on.

    draining: set by the first SIGTERM or SIGINT, by the parent's death, or by `drain`. A second signal ends the
    process at once, with status 128 + the signal's number.
    """

    def __init__(self, exit_now: Callable[[int], object] = os._exit) -> None:
        self.draining = asyncio.Event()
        self.reason = ""
        self._exit_now = exit_now
        self._signals = 0

    def drain(self, reason: str) -> None:
        """Ask the process to finish what it has and end; the first reason stays."""
        if not self.draining.is_set():
            self.reason = reason
            self.draining.set()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within, SIGTERM and SIGINT drain. Needs the main thread's running event loop."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def watch_parent(self, pid: int) -> None:
        """Drain when process `pid`, our parent, is gone; returns then, or at once for 0."""
        if pid == 0:
            return
        while os.getppid() == pid:  # noqa: ASYNC110  no event tells it
            await asyncio.sleep(_PARENT_POLL_S)
        self.drain(f"parent {pid} is gone")

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            self._exit_now(128 + number)
        self.drain(number.name)


class InFlight:
    """Counts what is in flight, and waits for it to end: `with in_flight: ...`."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.count += 1
        self._idle.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def drained(self, deadline: Deadline) -> bool:
        """Wait until nothing is in flight; False where the deadline came first."""
        try:
            async with asyncio.timeout(None if deadline == NEVER else deadline.remaining_s()):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


async def until(condition: Callable[[], bool], deadline: Deadline, every_s: float = 0.01) -> bool:
    """Wait until the condition holds, looking every `every_s` seconds; False where the deadline came first."""
    while not condition():
        if deadline.passed():
            return False
        await asyncio.sleep(min(every_s, deadline.remaining_s()))
    return True


def end_with_parent(parent_pid: int, number: signal.Signals = signal.SIGTERM) -> bool:
    """Ask the kernel to send this process a signal when the thread that started it ends.

    Call it in the child, first of all. Returns False where the kernel cannot, or the parent is already gone:
    the caller should end then. The kernel looks at the parent's *thread*: start children from one that lives on.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        return False
    return os.getppid() == parent_pid


def ending_with_parent(number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` for programs that are not ours (redis-server): they end when this process does."""
    parent_pid = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)  # the parent died between fork and prctl

    return before_exec
