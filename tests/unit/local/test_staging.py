"""What the supervisor knows about splitting: where stages are kept, how much a process may take, how failures are told."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from shardline.local import memory, staging
from shardline.local.options import ClusterOptions, load_settings
from shardline.local.readiness import explain_broken
from shardline.local.wishes import Wish, parse_wishes


class _Ended:
    """A child that has ended, as far as a failure's words need it."""

    def last_words(self) -> str:
        return "it said so"


def failure(last: dict[str, Any], status: int) -> str:
    return staging._failure("m", last, cast("Any", _Ended()), status)


def test_kept_stages_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert staging.cache_folder() == Path("/var/cache/me/shardline/plans")
    for useless in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert staging.cache_folder() == Path.home() / ".cache" / "shardline" / "plans"


def test_a_planner_that_failed_is_told_in_its_words_or_by_how_it_ended() -> None:
    assert failure({"error": "it has one node"}, 1) == "model m cannot be split: it has one node"
    killed = failure({}, -signal.SIGKILL)
    assert "killed, probably for the memory" in killed
    assert "--stages m=FOLDER" in killed
    assert failure({}, 3).endswith("planning it ended (exit status 3): it said so")


@pytest.mark.parametrize(
    ("wish", "memory_bytes", "overhead"),
    [
        ("m=3", 0, 0),
        ("m=2Gi", 2 << 30, 0),
        ("m=auto", 700 << 20, memory.MAPPED_OVERHEAD_BYTES),
    ],
)
def test_auto_fits_stages_into_what_a_replica_may_take(wish: str, memory_bytes: int, overhead: int) -> None:
    options = ClusterOptions(load_settings(repository="/models", replica_memory_bytes=700 << 20))
    order = staging._order(options, "m", 1, parse_wishes([wish], [])["m"], 1)
    assert (order["memory_bytes"], order["overhead_bytes"]) == (memory_bytes, overhead)


def test_auto_without_a_limit_fits_stages_into_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(staging, "machine_bytes", lambda: 5 << 30)
    order = staging._order(
        ClusterOptions(load_settings(repository="/models")), "m", 1, parse_wishes(["m=auto"], [])["m"], 1
    )
    assert (order["memory_bytes"], order["overhead_bytes"]) == (5 << 30, 0)


def test_a_plan_that_was_made_before_is_handed_on(tmp_path: Path) -> None:
    order = staging._order(ClusterOptions(load_settings(repository="/models")), "m", 1, Wish(plan=tmp_path), 1)
    assert order["plan"] == str(tmp_path)


def test_the_least_of_all_limits_binds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = {resource.RLIMIT_DATA: 900, resource.RLIMIT_AS: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert memory.mapped_limit_bytes() == 900
    assert memory.mapped_limit_bytes(700) == 700
    (tmp_path / "bound").write_text("4096\n")
    (tmp_path / "unbound").write_text("max\n")
    assert memory.machine_bytes((str(tmp_path / "bound"), str(tmp_path / "none"))) == 4096
    assert memory.machine_bytes((str(tmp_path / "unbound"),)) > 1 << 20


def test_a_model_above_the_memory_of_a_replica_is_told_with_the_way_out() -> None:
    reason = "ONNX Runtime cannot load it: std::bad_alloc"
    assert "--stages m=auto splits it" in explain_broken("m", reason, bound=True)
    assert explain_broken("m", reason, bound=False) == f"model m: {reason}"
    assert explain_broken("m", "no such file", bound=True) == "model m: no such file"
