"""How a running cluster is found."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shardline.cli.target import DEFAULT_URL, find_target
from shardline.local import statefile
from shardline.local.statefile import RunningCluster

if TYPE_CHECKING:
    from pathlib import Path

HERE = RunningCluster(os.getpid(), "127.0.0.1:9001", "unix:///x/redis.sock", "default", "/models", 10.0)
NOBODY = 2**22 + 1
"""Above the kernel's largest pid."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "shardline"


def test_a_running_cluster_is_found_and_only_its_user_can_read_of_it(runtime: Path) -> None:
    path = statefile.write(HERE)
    assert statefile.running() == (HERE,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700


def test_a_dead_cluster_is_not_found_and_its_file_goes(runtime: Path) -> None:
    path = statefile.write(replace(HERE, pid=NOBODY))
    assert statefile.running() == ()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"other": 1}'])
def test_a_file_that_is_not_one_of_ours_is_passed_over(content: str, runtime: Path) -> None:
    statefile.write(HERE)
    (runtime / "odd.json").write_text(content)
    assert statefile.running() == (HERE,)


def test_a_folder_that_others_may_read_is_refused(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="mode 700"):
        statefile.write(HERE)


def test_a_link_in_the_folders_place_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="mode 700"):
        statefile.write(HERE)


def test_commands_mean_the_newest_cluster_here_else_the_default_address() -> None:
    assert find_target(None).url == DEFAULT_URL
    assert not find_target(None).found
    statefile.write(HERE)
    found = find_target(None)
    assert (found.url, found.redis, found.found) == (HERE.endpoint, HERE.redis, True)


@pytest.mark.parametrize("url", ["127.0.0.1:9001", "localhost:9001", "grpc://127.0.0.1:9001"])
def test_a_url_of_a_cluster_here_leads_to_its_redis(url: str) -> None:
    statefile.write(HERE)
    assert find_target(url).redis == HERE.redis


def test_another_url_leads_to_no_redis() -> None:
    statefile.write(HERE)
    target = find_target("elsewhere:9001")
    assert (target.url, target.redis, target.found) == ("elsewhere:9001", "", False)
