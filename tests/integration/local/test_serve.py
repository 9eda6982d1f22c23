"""`shardline serve` with real processes: it starts, it serves, it heals, it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from shardline.local.readiness import NO_SAMPLE
from tests import onnx_models
from tests.integration.local.local_cluster import LocalCluster, has_ended, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    onnx_models.save(folder, "add_one", 1, onnx_models.add_one())
    onnx_models.save(folder, "text", 2, onnx_models.string_identity())
    return folder


@pytest.fixture(scope="module")
def serving(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One cluster for the tests that leave it whole."""
    with LocalCluster(repository, tmp_path_factory.mktemp("serving"), "--replicas", "2", "--routers", "2") as cluster:
        yield cluster.start_ready()


def table_row(cluster: LocalCluster, model: str) -> str:
    return next(line for line in cluster.out.splitlines() if line.split()[:1] == [model])


def assert_nothing_left(cluster: LocalCluster, within_s: float) -> None:
    until(lambda: not cluster.survivors(), within_s, "every child has ended")
    until(lambda: not cluster.left_behind(), within_s, f"no files: {cluster.left_behind()}")


def test_the_table_tells_what_each_model_answered_and_where(serving: LocalCluster) -> None:
    words = table_row(serving, "add_one").split()
    assert words[:6] == ["add_one", "1", "1", "2", "cpu", serving.url]
    assert "1.5, 1.5, 1.5 …" in table_row(serving, "add_one")
    assert "'shardline'" in table_row(serving, "text")
    assert words[-1] in ("µs", "ms", "s")


def test_it_runs_as_many_processes_as_asked_for(serving: LocalCluster) -> None:
    assert len(serving.role("shardline.router")) == 2
    assert len(serving.role("shardline.replica")) == 2
    assert len(serving.role("redis-server")) == 1


def test_infer_answers_with_the_given_input_and_a_receipt(serving: LocalCluster) -> None:
    done = serving.command("infer", "add_one", "--input", "-", "--json", stdin='{"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}')
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (output,) = document["outputs"].values()
    assert output == {"datatype": "FP32", "shape": [2, 4], "data": [[2, 3, 4, 5], [6, 7, 8, 9]]}
    assert document["version"] == "1"
    assert document["receipt"][0]["batch_rows"] == "2"


def test_infer_makes_an_input_up_where_none_is_given(serving: LocalCluster) -> None:
    done = serving.command("infer", "text")
    assert done.returncode == 0, done.stderr
    assert "shardline" in done.stdout
    assert "--input sends yours" in done.stdout


def test_infer_says_which_models_there_are_when_it_is_not_one_of_them(serving: LocalCluster) -> None:
    done = serving.command("infer", "nobody")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "NOT_FOUND" in done.stderr
    assert "shardline models" in done.stderr


def test_models_lists_versions_states_and_signatures(serving: LocalCluster) -> None:
    done = serving.command("models", "--json")
    assert done.returncode == 0, done.stderr
    found = {(entry["name"], entry["version"], entry["state"]): entry for entry in json.loads(done.stdout)}
    assert set(found) == {("add_one", "1", "READY"), ("text", "2", "READY")}
    assert found["add_one", "1", "READY"]["inputs"][0]["datatype"] == "FP32"
    assert "add_one" in serving.command("models").stdout


def test_status_tells_who_is_alive_and_how_long_the_queues_are(serving: LocalCluster) -> None:
    done = serving.command("status", "--json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert view["health"] == "healthy"
    assert {replica["pid"] for replica in view["replicas"]} == {
        process.pid for process in serving.role("shardline.replica")
    }
    assert len(view["routers"]) == 2
    assert {(pool["pool"], pool["ready"], pool["queue_rows"]) for pool in view["pools"]} == {
        ("add_one:1/0", 2, 0),
        ("text:2/0", 2, 0),
    }
    assert "healthy" in serving.command("status").stdout


def test_a_second_cluster_runs_beside_the_first(serving: LocalCluster, repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "1", "--models", "text") as other:
        other.start_ready()
        assert other.command("infer", "add_one").returncode == 1
        assert serving.command("infer", "add_one").returncode == 0
        other.signal(signal.SIGTERM)
        assert other.wait() == 0
    assert serving.command("infer", "add_one").returncode == 0


def test_a_killed_replica_is_replaced_and_nobody_notices(serving: LocalCluster) -> None:
    victim, other = serving.role("shardline.replica")
    victim.kill()
    assert serving.command("infer", "add_one").returncode == 0
    until(lambda: has_ended(victim), 10, "the victim is gone")

    def whole() -> bool:
        view = json.loads(serving.command("status", "--json").stdout)
        alive = {replica["pid"] for replica in view["replicas"] if replica["state"] == "ready"}
        return len(alive) == 2 and victim.pid not in alive and other.pid in alive

    until(whole, 60, "two replicas are ready again")
    assert "ended (killed by SIGKILL)" in serving.err


def test_sigterm_ends_everything_in_order_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "1") as cluster:
        cluster.start_ready()
        cluster.signal(signal.SIGTERM)
        assert cluster.wait() == 0
        assert_nothing_left(cluster, 5)
        assert "killed" not in cluster.err


def test_ctrl_c_in_a_terminal_ends_everything(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "1") as cluster:
        cluster.start_ready()
        assert cluster.process is not None
        os.killpg(cluster.process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        assert cluster.wait() == 0
        assert_nothing_left(cluster, 5)


def test_an_interrupt_during_the_start_ends_everything(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "1") as cluster:
        cluster.start()
        until(lambda: bool(cluster.role("shardline.replica")), 60, "a replica was started")
        cluster.signal(signal.SIGINT)
        assert cluster.wait() == 0
        assert_nothing_left(cluster, 5)


def test_nothing_is_left_when_the_supervisor_is_killed(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "2") as cluster:
        cluster.start_ready()
        assert len(cluster.children()) >= 4
        cluster.signal(signal.SIGKILL)
        cluster.wait()
        assert_nothing_left(cluster, 5)


def test_a_given_redis_is_used_and_left_alone(serving: LocalCluster, repository: Path, tmp_path: Path) -> None:
    redis = json.loads(serving.command("status", "--json").stdout)["redis"]["where"]
    with LocalCluster(
        repository, tmp_path, "--replicas", "1", "--redis", f"unix://{redis}", "--cluster", "two"
    ) as second:
        second.start_ready()
        assert second.role("redis-server") == []
        view = json.loads(second.command("status", "--redis", f"unix://{redis}", "--cluster", "two", "--json").stdout)
        assert [replica["pid"] for replica in view["replicas"]] == [second.role("shardline.replica")[0].pid]
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    assert len(serving.role("redis-server")) == 1
    assert len(json.loads(serving.command("status", "--json").stdout)["replicas"]) == 2


def test_a_taken_port_is_one_line_and_nothing_is_started(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path) as cluster, socket.create_server(("127.0.0.1", cluster.port)):
        cluster.start()
        assert cluster.wait() == 1
        assert f"cannot listen on 127.0.0.1:{cluster.port} for gRPC" in cluster.err
        assert (cluster.err.count("\n"), cluster.out) == (1, "")
        assert cluster.left_behind() == []


def test_the_port_of_a_running_cluster_is_taken(serving: LocalCluster, repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--port", str(serving.port)) as cluster:
        cluster.start()
        assert cluster.wait() == 1
        assert "already in use" in cluster.err
    assert serving.command("infer", "add_one").returncode == 0


def test_a_broken_model_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "repository", "good", 1, onnx_models.add_one())
    onnx_models.save(tmp_path / "repository", "bad", 1, b"not an ONNX file")
    with LocalCluster(tmp_path / "repository", tmp_path / "run") as cluster:
        cluster.start()
        assert cluster.wait() == 1
        assert "model bad" in cluster.err
        assert (cluster.err.count("\n"), cluster.out) == (1, "")


def test_a_model_is_served_also_where_no_made_up_input_suits_it(tmp_path: Path) -> None:
    for name, length in (("usual", 48), ("odd", 7)):
        onnx_models.save(tmp_path / "repository", name, 1, onnx_models.of_length(length))
    with LocalCluster(tmp_path / "repository", tmp_path / "run", "--replicas", "1") as cluster:
        cluster.start_ready()
        assert "y [1×48] -1, -1, -1 …" in table_row(cluster, "usual")
        assert f"{NO_SAMPLE} " in table_row(cluster, "odd")
        assert "odd takes no input that we can make up: model failed:" in cluster.out + cluster.err
        refused = cluster.command("infer", "odd")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "send yours with --input" in refused.stderr
        given = cluster.command("infer", "odd", "--input", "-", "--json", stdin='{"x": [[1, 2, 3, 4, 5, 6, 7]]}')
        assert json.loads(given.stdout)["outputs"]["y"]["data"] == [[-2, -4, -6, -8, -10, -12, -14]]


def test_keep_going_serves_the_good_model_and_names_the_broken_one(tmp_path: Path) -> None:
    onnx_models.save(tmp_path / "repository", "good", 1, onnx_models.add_one())
    onnx_models.save(tmp_path / "repository", "bad", 1, b"not an ONNX file")
    with LocalCluster(tmp_path / "repository", tmp_path / "run", "--replicas", "1", "--keep-going") as cluster:
        cluster.start_ready()
        assert "left out: model bad" in cluster.err
        assert cluster.command("infer", "good").returncode == 0


def test_a_model_that_only_the_runtime_refuses_stops_the_start(tmp_path: Path) -> None:
    model = onnx_models.add_one()
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx_models.save(tmp_path / "repository", "odd", 1, model)
    with LocalCluster(tmp_path / "repository", tmp_path / "run", "--replicas", "1") as cluster:
        cluster.start()
        assert cluster.wait(60) == 1
        assert cluster.err.splitlines()[-1].startswith("shardline: model odd")
        assert_nothing_left(cluster, 5)


@pytest.mark.parametrize(("name", "words"), [("missing", "cannot be read"), ("empty", "holds no models")])
def test_a_repository_without_models_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with LocalCluster(tmp_path / name, tmp_path / "run") as cluster:
        cluster.start()
        assert cluster.wait() == 1
        assert words in cluster.err
        assert cluster.err.count("\n") == 1


def test_a_redis_that_does_not_answer_is_told_without_its_password(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--redis", "redis://:hunter2@127.0.0.1:1/0") as cluster:
        cluster.start()
        assert cluster.wait() == 1
        assert "cannot reach Redis at 127.0.0.1:1" in cluster.err
        assert "hunter2" not in cluster.err
        assert cluster.err.count("\n") == 1


def test_json_logs_are_json_line_by_line(repository: Path, tmp_path: Path) -> None:
    with LocalCluster(repository, tmp_path, "--replicas", "1", "--json-logs") as cluster:
        cluster.start()
        until(lambda: "add_one" in cluster.out or cluster.ended, 60, f"ready: {cluster.err}")
        cluster.signal(signal.SIGTERM)
        assert cluster.wait() == 0
        events = [json.loads(line) for line in cluster.err.splitlines()]
        assert {"router", "replica"} <= {event.get("process") for event in events}
