"""Digests of model files: the same digest means the same model.

Files are read once per (path, size, modification time): a digest of gigabytes takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CHUNK_BYTES = 1 << 20
_CACHE_ENTRIES = 4096

_Key = tuple[str, int, int, int]


class FileDigests:
    """SHA-256 of files, remembered by real path, size, modification time and inode. Safe to share between threads."""

    def __init__(self, entries: int = _CACHE_ENTRIES) -> None:
        self._entries = entries
        self._known: OrderedDict[_Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """The file's digest, hexadecimal. Raises ModelRejected when it cannot be read or changes while it is."""
        try:
            with path.open("rb") as file:
                key = _key(path, file.fileno())
                with self._lock:
                    if key in self._known:
                        self._known.move_to_end(key)
                        return self._known[key]
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                if _key(path, file.fileno()) != key:
                    raise ModelRejected(f"{path}: changed while it was read; load it again when it is complete")
        except OSError as error:
            raise ModelRejected(f"{path}: cannot be read: {error.strerror or error}") from error
        self._remember(key, digest.hexdigest())
        return digest.hexdigest()

    def _remember(self, key: _Key, digest: str) -> None:
        with self._lock:
            self._known[key] = digest
            while len(self._known) > self._entries:
                self._known.popitem(last=False)


FILE_DIGESTS = FileDigests()
"""This process's memory of file digests."""


def files_digest(folder: Path, files: Iterable[Path], digests: FileDigests = FILE_DIGESTS) -> str:
    """One digest over files in `folder`: of their relative names and contents, whatever their order or the folder."""
    whole = hashlib.sha256()
    for name, path in sorted((str(path.relative_to(folder)), path) for path in files):
        whole.update(f"{len(name.encode())}:{name}:{digests.of(path)}\n".encode())
    return whole.hexdigest()


def model_digest(files: str, config: bytes) -> str:
    """The digest of a model version: of its files' digest and its complete, serialised config."""
    return hashlib.sha256(files.encode() + b"\n" + config).hexdigest()


def _key(path: Path, descriptor: int) -> _Key:
    stat = os.fstat(descriptor)
    return (os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
