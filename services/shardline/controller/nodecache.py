"""A folder on the node (or of the pod alone) where models and stages are kept that replicas execute.

An entry is complete or absent: it is made under another name and renamed. Who uses an entry holds a shared lock on it until the process
ends, so that making room for another one never takes the files from under a replica; locks end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import Callable

log = logs.get(__name__)

LOCKS = "locks"


class NodeCache:
    """limit_bytes: entries beyond it that nobody uses are removed, the longest unused first; 0: none is."""

    def __init__(self, folder: Path, limit_bytes: int = 0) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def hold(self, key: str, make: Callable[[Path], None], check: Callable[[Path], None]) -> Path:
        """The entry, made if it is not there or is damaged, and kept until this process ends (exec included).

        make: fills a folder. check: raises ModelRejected where an entry is not what it was. Raises what make raises.
        """
        (self._folder / LOCKS).mkdir(parents=True, exist_ok=True)
        entry = self._folder / key
        # Never closed: the lock is the process's for its life. Inherited by the replica that this process becomes.
        in_use = self._open_lock(key)
        os.set_inheritable(in_use, True)
        fcntl.flock(in_use, fcntl.LOCK_SH)
        making = self._open_lock(f"{key}.making")
        try:
            fcntl.flock(making, fcntl.LOCK_EX)  # several pods of a node start at once: one of them makes it
            if not self._whole(entry, check):
                self._make(entry, make)
            os.utime(entry)
        finally:
            os.close(making)
        self._make_room(entry)
        return entry

    def _open_lock(self, name: str) -> int:
        return os.open(self._folder / LOCKS / name, os.O_RDWR | os.O_CREAT, 0o644)

    def _whole(self, entry: Path, check: Callable[[Path], None]) -> bool:
        if not entry.is_dir():
            return False
        try:
            check(entry)
        except ModelRejected as error:
            log.warning("cache.damaged", entry=entry.name, reason=error.message)
            shutil.rmtree(entry)  # who uses it has its files open
            return False
        log.info("cache.found", entry=entry.name)
        return True

    def _make(self, entry: Path, make: Callable[[Path], None]) -> None:
        began = time.monotonic()
        for left in self._folder.glob(
            f".{entry.name}.partial-*"
        ):  # by a process that was killed: nobody else makes this entry now
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=f".{entry.name}.partial-", dir=self._folder) as partial:
            new = Path(partial) / "entry"
            new.mkdir()
            make(new)
            new.rename(entry)
        log.info("cache.made", entry=entry.name, bytes=size_of(entry), seconds=round(time.monotonic() - began, 3))

    def _make_room(self, keep: Path) -> None:
        if not self._limit_bytes:
            return
        entries = [path for path in self._folder.iterdir() if path.is_dir() and path.name != LOCKS]
        sizes = {path: size_of(path) for path in entries if not path.name.startswith(".")}
        for path in sorted(sizes, key=_used_at):
            if sum(sizes.values()) <= self._limit_bytes:
                return
            if path != keep and self._remove(path):
                log.info("cache.removed", entry=path.name, bytes=sizes.pop(path))

    def _remove(self, entry: Path) -> bool:
        """False where somebody uses it."""
        lock = self._open_lock(entry.name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True


def size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0
