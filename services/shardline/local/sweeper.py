"""The process that cleans up after a supervisor that could not do it itself (kill -9, out of memory).

It holds the read end of a pipe whose write end only the supervisor has. The supervisor writes what exists:
`watch PID`, `forget PID`, `remove PATH`, one a line. When the pipe closes, whatever is still watched is ended
and the paths are removed. After an orderly stop there is nothing left to do.

Run by its path with `python -I -S`, so it imports the standard library only and starts in milliseconds; it
sleeps in a read until then. prctl(PR_SET_PDEATHSIG) was rejected as the only means: a program such as
redis-server would need it set between fork and exec, where Python cannot run safely beside threads.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

TERM_GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL: nobody waits for answers any more once the supervisor is gone."""

_POLL_S = 0.02


class Watched:
    """A process that is not our child: held by a pidfd, so that a reused pid is never hit (by pid elsewhere)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None

    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        if self._handle is not None:
            return not select.select([self._handle], [], [], 0)[0]
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        if not self.alive():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Let go of the process."""
        if self._handle is not None:
            os.close(self._handle)


def obey(line: str, watched: dict[int, Watched], paths: list[str]) -> None:
    """Carry out one line from the supervisor; a process that has already ended is not worth watching."""
    word, _, rest = line.strip().partition(" ")
    if word == "watch":
        try:
            watched[int(rest)] = Watched(int(rest))
        except OSError:
            return
    elif word == "forget":
        gone = watched.pop(int(rest), None)
        if gone is not None:
            gone.close()
    elif word == "remove":
        paths.append(rest)


def sweep(watched: dict[int, Watched], paths: list[str], grace_s: float = TERM_GRACE_S) -> None:
    """End everything watched (SIGTERM, then SIGKILL after `grace_s` seconds), then remove the paths."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        for process in watched.values():
            process.signal(number)
        until = time.monotonic() + wait_s
        while any(process.alive() for process in watched.values()) and time.monotonic() < until:
            time.sleep(_POLL_S)
    for path in paths:
        if Path(path).is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink(missing_ok=True)


def main() -> None:
    """Read until the supervisor is gone, then sweep."""
    # A Ctrl-C or a hang-up of the terminal is the supervisor's to handle; we outlive it on purpose.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, Watched] = {}
    paths: list[str] = []
    for line in sys.stdin:
        obey(line, watched, paths)
    sweep(watched, paths)


if __name__ == "__main__":
    main()
