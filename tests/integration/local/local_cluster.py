"""A real `shardline serve` for tests: started, read, signalled, and never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.ports import free_port

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

START_S = 90.0
STOP_S = 30.0


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until the condition holds; AssertionError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or dead and not yet collected by its parent."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class LocalCluster:
    """`shardline serve` in a process group of its own. A context manager: left, everything is killed.

    folder: for its output, state file and run folder. arguments: further ones of the command line.
    """

    def __init__(self, repository: Path, folder: Path, *arguments: str, environment: dict[str, str] | None = None):
        self.folder = folder
        self.port = free_port()
        self.runtime = folder / "runtime"
        # Not below pytest's folder: its names are too long for the sockets in it.
        self.temporary = Path(tempfile.mkdtemp(prefix="slt-"))
        self._arguments = (str(repository), "--port", str(self.port), "--metrics-port", "0", *arguments)
        self._environment = environment or {}
        self._seen: dict[int, psutil.Process] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runtime.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.children()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)
        for process in self._seen.values():
            if not has_ended(process):
                process.kill()
        for left in self.left_behind():
            left.unlink() if not left.is_dir() else left.rmdir()
        self.temporary.rmdir()

    @property
    def environment(self) -> dict[str, str]:
        """What the command and others that shall find the cluster run with."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHARDLINE_")}
        places = {"XDG_RUNTIME_DIR": str(self.runtime), "TMPDIR": str(self.temporary)}
        return {**inherited, **places, **self._environment}

    def start(self) -> Self:
        """Start it; does not wait."""
        with open(self.folder / "out", "wb") as out, open(self.folder / "err", "wb") as err:  # noqa: PTH123
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shardline.cli", "serve", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.environment,
                process_group=0,
            )
        return self

    def start_ready(self) -> Self:
        """Start it and wait until it serves."""
        self.start()
        until(lambda: "serving until Ctrl-C" in self.err or self.ended, START_S, f"ready: {self.err}")
        assert not self.ended, self.err
        self.children()
        return self

    @property
    def out(self) -> str:
        """What it wrote to standard output so far."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return (self.folder / "err").read_text()

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        assert self.process is not None
        return self.process.poll() is not None

    @property
    def url(self) -> str:
        """Where clients call it."""
        return f"127.0.0.1:{self.port}"

    def children(self) -> list[psutil.Process]:
        """Its processes that live now, at any depth; every one that was seen is remembered."""
        assert self.process is not None
        if self.ended:
            return []
        found = psutil.Process(self.process.pid).children(recursive=True)
        self._seen.update({process.pid: process for process in found})
        return found

    def role(self, word: str) -> list[psutil.Process]:
        """Its children whose command line holds `word`: shardline.router, shardline.replica, redis-server."""
        found = []
        for process in self.children():
            try:
                if any(word in part for part in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send the command, and nobody else, a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for the command's end; returns its exit status."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def survivors(self) -> list[psutil.Process]:
        """Children that were seen and still live."""
        return [process for process in self._seen.values() if not has_ended(process)]

    def left_behind(self) -> list[Path]:
        """Files and folders that it left: sockets, run folders, state files (the folder for these may stay)."""
        below = [*self.temporary.rglob("*"), *self.runtime.rglob("*")]
        return sorted((path for path in below if path != self.runtime / "shardline"), reverse=True)

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run another shardline command beside it."""
        return run_command(arguments, self.environment, stdin)


def run_command(
    arguments: Sequence[str], environment: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a shardline command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "shardline.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
