"""What is kept on a node: complete or absent, whole or made anew, never taken from under who uses it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shardline.controller.nodecache import LOCKS, NodeCache, size_of
from shardline.core.errors import ModelRejected

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from shardline.controller.nodecache import NodeCache
NodeCache(Path(sys.argv[1])).hold(sys.argv[2], lambda folder: (folder / "data").write_bytes(b"x" * 100), lambda folder: None)
print("held", flush=True)
sys.stdin.read()
"""


def fill(folder: Path) -> None:
    (folder / "data").write_bytes(b"x" * 100)


def fine(_entry: Path) -> None:
    return


def never(_folder: Path) -> None:
    raise AssertionError("it was there already")


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCKS}


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    assert (NodeCache(tmp_path).hold("a", fill, fine) / "data").stat().st_size == 100
    assert NodeCache(tmp_path).hold("a", never, fine) == tmp_path / "a"
    assert size_of(tmp_path / "a") == 100


def test_what_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        raise ModelRejected("no such version")

    with pytest.raises(ModelRejected):
        NodeCache(tmp_path).hold("a", fails, fine)
    assert entries(tmp_path) == set()


def test_what_a_killed_process_had_half_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.partial-1").mkdir()
    (tmp_path / ".b.partial-1").mkdir()
    NodeCache(tmp_path).hold("a", fill, fine)
    assert entries(tmp_path) == {"a", ".b.partial-1"}, "another's may still be in the making"


def test_a_damaged_entry_is_made_anew(tmp_path: Path) -> None:
    def is_whole(entry: Path) -> None:
        if (entry / "data").stat().st_size != 100:
            raise ModelRejected("data was changed")

    (NodeCache(tmp_path).hold("a", fill, is_whole) / "data").write_bytes(b"short")
    assert (NodeCache(tmp_path).hold("a", fill, is_whole) / "data").stat().st_size == 100


def test_room_is_made_by_the_longest_unused_but_never_from_under_a_replica(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "used"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert any(line.strip() == "held" for line in holder.stdout)
        for name in ("old", "newer"):
            (tmp_path / name).mkdir()
            fill(tmp_path / name)
            time.sleep(0.02)  # their order is that of their times
        assert NodeCache(tmp_path).hold("used", never, fine) == tmp_path / "used", "several may use it"
        NodeCache(tmp_path, limit_bytes=350).hold("now", fill, fine)
        assert entries(tmp_path) == {"used", "newer", "now"}, "the oldest is in use, the next one goes"
        holder.stdin.close()
        holder.wait(timeout=10)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path), "used"], stdin=subprocess.DEVNULL, check=True)
    NodeCache(tmp_path, limit_bytes=150).hold("next", fill, fine)
    assert entries(tmp_path) == {"next"}


def test_nothing_is_removed_without_a_limit(tmp_path: Path) -> None:
    for name in "abc":
        NodeCache(tmp_path).hold(name, fill, fine)
    assert entries(tmp_path) == {"a", "b", "c"}
