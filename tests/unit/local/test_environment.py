"""The processes of a cluster and their settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shardline.local.environment import children, metrics_ports
from shardline.local.failure import ClusterFailed
from shardline.local.layout import Layout, StagedModel
from shardline.local.options import ClusterOptions, load_settings
from shardline.ops.settings import ReplicaSettings, RouterSettings, load

if TYPE_CHECKING:
    from shardline.local.child import ChildSpec

FOLDER = Path("/run/shardline-x")
REDIS = "unix:///run/shardline-x/redis.sock"


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SHARDLINE_")]:
        monkeypatch.delenv(name)


def options(*, models: tuple[str, ...] = (), all_lines: bool = False, **flags: Any) -> ClusterOptions:
    return ClusterOptions(load_settings(repository="/models", **flags), models, all_lines=all_lines)


def specs(role: str, given: ClusterOptions, cores: int = 8, layout: Layout | None = None) -> list[ChildSpec]:
    layout = layout or Layout(given.settings.replicas, given.models)
    return [spec for spec in children(given, layout, REDIS, FOLDER, cores) if spec.role == role]


def loaded(kind: Any, spec: ChildSpec, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that the child itself will read."""
    with monkeypatch.context() as patch:
        for name, value in spec.environment.items():
            patch.setenv(name, value)
        return load(kind)


def test_each_process_reads_the_settings_that_were_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(
        replicas=2, routers=2, port=9001, metrics_port=9002, device="simulated", front="grpcio", models=("a", "b")
    )
    routers = [loaded(RouterSettings, spec, monkeypatch) for spec in specs("router", given)]
    replicas = [loaded(ReplicaSettings, spec, monkeypatch) for spec in specs("replica", given)]
    assert [router.port for router in routers] == [9001, 9001]
    assert [router.metrics_port for router in routers] == [9002, 9003] == list(metrics_ports(given))
    assert {(router.front, router.reuse_port, router.host) for router in routers} == {("grpcio", True, "127.0.0.1")}
    assert [replica.threads for replica in replicas] == [4, 4]
    assert {(replica.repository, replica.models, replica.device) for replica in replicas} == {
        ("/models", ("a", "b"), "simulated")
    }
    everyone = [*routers, *replicas]
    assert {(one.redis_url, one.run_dir, one.parent_pid) for one in everyone} == {(REDIS, FOLDER, os.getpid())}


def test_children_have_different_names_and_run_with_this_python() -> None:
    made = children(options(replicas=3, routers=2), Layout(3), REDIS, FOLDER, 4)
    assert sorted(spec.name for spec in made) == ["replica 0", "replica 1", "replica 2", "router 0", "router 1"]
    assert {spec.argv[1:] for spec in made} == {("-m", "shardline.router"), ("-m", "shardline.replica")}


def test_each_stage_has_replicas_of_its_own_and_the_cores_are_shared_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(1, ("a",), (StagedModel("m", 3, Path("/plans/m"), (2, 1)),))
    monkeypatch.setenv("SHARDLINE_STAGE", "/somewhere/else#0")
    made = specs("replica", options(), 8, layout)
    assert [spec.name for spec in made] == ["replica 0", "replica m:3/0 (0)", "replica m:3/0 (1)", "replica m:3/1"]
    read = [loaded(ReplicaSettings, spec, monkeypatch) for spec in made]
    assert [(one.models, one.stage) for one in read] == [
        (("a",), ""),
        (("m",), "/plans/m#0"),
        (("m",), "/plans/m#0"),
        (("m",), "/plans/m#1"),
    ]
    assert {one.threads for one in read} == {2}


def test_only_replicas_are_bound_in_memory() -> None:
    given = options(replica_memory_bytes=700 << 20)
    assert {spec.memory_bytes for spec in specs("replica", given)} == {700 << 20}
    assert {spec.memory_bytes for spec in specs("router", given)} == {0}


def test_settings_without_a_flag_reach_the_children_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDLINE_ROWS_IN_FLIGHT", "77")
    monkeypatch.setenv("SHARDLINE_REPLICAS", "3")
    given = options()
    assert len(specs("replica", given)) == 3
    assert loaded(RouterSettings, specs("router", given)[0], monkeypatch).rows_in_flight == 77


def test_a_flag_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDLINE_PORT", "7001")
    monkeypatch.setenv("SHARDLINE_HOST", "0.0.0.0")
    assert options().settings.port == 7001
    assert options(port=9001).settings.port == 9001
    assert options().endpoint == "127.0.0.1:7001"
    assert options(host="::1").endpoint == "[::1]:7001"
    assert options(host="::").endpoint == "[::1]:7001"


def test_nothing_listens_beyond_this_machine_unless_asked() -> None:
    settings = options().settings
    assert (settings.host, settings.metrics_host) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize(
    ("all_lines", "wanted", "level"),
    [(False, "info", "warning"), (False, "error", "error"), (True, "debug", "debug"), (True, "info", "info")],
)
def test_children_write_only_what_someone_reads(
    all_lines: bool, wanted: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLINE_LOG_LEVEL", wanted)
    assert specs("router", options(all_lines=all_lines))[0].environment["SHARDLINE_LOG_LEVEL"] == level


@pytest.mark.parametrize(("port", "ports"), [(0, ()), (-1, ()), (8002, (8002, 8003))])
def test_only_chosen_metrics_ports_are_checked(port: int, ports: tuple[int, ...]) -> None:
    assert metrics_ports(options(routers=2, metrics_port=port)) == ports


def test_a_wrong_setting_is_told_with_its_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterFailed, match="--device=tpu"):
        options(device="tpu")
    with pytest.raises(ClusterFailed, match=r"--redis=…: must begin with redis://"):
        options(redis_url="http://:hunter2@x")
    monkeypatch.setenv("SHARDLINE_DRAIN_S", "soon")
    with pytest.raises(ClusterFailed, match="SHARDLINE_DRAIN_S=soon"):
        options()
