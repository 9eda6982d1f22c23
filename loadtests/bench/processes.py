"""Server processes under measurement: started in a session of their own, weighed as a whole tree, always ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_GRACE_S = 10.0


class ServerFailed(RuntimeError):
    """A server ended or never became ready; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and all its descendants, as they are now."""

    pid: int

    def members(self) -> list[psutil.Process]:
        """The living processes, the root first; empty when it has ended."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system seconds that the living members used since they started."""
        total = 0.0
        for process in self.members():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Proportional set size: pages shared by k members count 1/k for each."""
        total = 0
        for process in self.members():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this process like Ctrl-C, so that the servers it started end with it."""

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Tree]:
    """Start a server, wait until `ready` says so, end it and its whole process group at the close.

    Raises ServerFailed when it ends early or is not ready after `deadline_s`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        _wait_ready(process, log, ready, time.monotonic() + deadline_s)
        yield Tree(process.pid)
    finally:
        _end(process)


def _wait_ready(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], until: float) -> None:
    while not ready():
        if process.poll() is not None:
            raise ServerFailed(f"it ended with {process.returncode}: {_tail(log)}")
        if time.monotonic() > until:
            raise ServerFailed(f"it was not ready in time: {_tail(log)}")
        time.sleep(0.05)


def _tail(log: Path, lines: int = 8) -> str:
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM and time to drain; then whatever is left of the tree is killed, also in groups of its own."""
    members = Tree(process.pid).members()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _, left = psutil.wait_procs(members, timeout=1.0)
    for member in left:
        with suppress(psutil.NoSuchProcess):
            member.kill()
