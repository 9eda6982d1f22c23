"""Environments of their own for what must not share ours: one virtual environment per hashed lock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parents[1]
_INSTALL_WITHIN_S = 900


class NotInstallable(RuntimeError):
    """A peer cannot be installed here; the message is the installer's last line."""


def environment(name: str, build: Path) -> Path:
    """Folder of the environment of `requirements-NAME.txt`, made or renewed when the lock changed."""
    lock = LOCKS / f"requirements-{name}.txt"
    folder = build / "venvs" / name
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / ".lock-digest"
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--require-hashes", "-r", str(lock)])
    stamp.write_text(digest)
    return folder


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(str(error)) from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstallable(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")
