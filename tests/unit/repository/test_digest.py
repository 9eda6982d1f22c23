from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import ModelRejected
from shardline.repository.digest import FileDigests, files_digest, model_digest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_digest_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    assert FileDigests().of(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_file_is_read_again_only_when_size_or_time_changed(tmp_path: Path) -> None:
    path, digests = tmp_path / "f", FileDigests()
    path.write_bytes(b"old")
    first = digests.of(path)
    stat = path.stat()
    path.write_bytes(b"new")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digests.of(path) == first, "same size and time: remembered"
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digests.of(path) == hashlib.sha256(b"new").hexdigest()
    path.write_bytes(b"longer")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digests.of(path) == hashlib.sha256(b"longer").hexdigest()


def test_the_memory_of_digests_is_bounded(tmp_path: Path) -> None:
    digests = FileDigests(entries=3)
    for index in range(10):
        path = tmp_path / str(index)
        path.write_bytes(b"%d" % index)
        digests.of(path)
    assert len(digests._known) == 3


def test_the_digest_of_files_knows_names_and_contents_but_not_order_or_folder(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        (folder / "one").write_bytes(b"1")
        (folder / "two").write_bytes(b"2")
    whole = files_digest(a, [a / "one", a / "two"])
    assert whole == files_digest(b, [b / "two", b / "one"])
    assert whole != files_digest(a, [a / "one"])
    (b / "one").write_bytes(b"2")
    (b / "two").write_bytes(b"1")
    assert whole != files_digest(b, [b / "one", b / "two"], FileDigests())


def test_the_model_digest_changes_with_files_and_with_config() -> None:
    digests = {model_digest("f", b"c"), model_digest("g", b"c"), model_digest("f", b"d"), model_digest("f\n", b"c")}
    assert len(digests) == 4


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"missing: cannot be read: No such file"):
        FileDigests().of(tmp_path / "missing")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    plain = hashlib.sha256

    class Growing:
        def __init__(self) -> None:
            self.inner = plain()

        def update(self, chunk: bytes) -> None:
            self.inner.update(chunk)
            with path.open("ab") as file:
                file.write(b"d") if path.stat().st_size < 10 else None

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    monkeypatch.setattr("shardline.repository.digest.hashlib.sha256", Growing)
    with pytest.raises(ModelRejected, match="changed while it was read"):
        FileDigests().of(path)
