"""`shardline serve` splits models as its command line and their configs say, from planning to the table, and heals them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from tests import onnx_models
from tests.integration.local.local_cluster import LocalCluster, until
from tests.integration.split.graphs import CASES
from tests.integration.split.staged_cluster import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

READY_S = 400.0
MODELS = Path("build/models")
STAGES_PARAMETER = 'parameters { key: "shardline.stages" value { string_value: "2" } }'


def start(cluster: LocalCluster) -> LocalCluster:
    """Start it and wait until it serves; planning comes first."""
    cluster.start()
    until(lambda: "serving until Ctrl-C" in cluster.err or cluster.ended, READY_S, f"ready: {cluster.err}")
    assert not cluster.ended, cluster.err
    cluster.children()
    return cluster


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    onnx_models.save(folder, "skips", 1, CASES["skips"].build(), f"max_batch_size: 4 {STAGES_PARAMETER}")
    onnx_models.save(folder, "half", 1, CASES["half"].build(), "max_batch_size: 4")
    onnx_models.save(folder, "whole", 1, onnx_models.add_one(), "max_batch_size: 4")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def serving(
    repository: Path, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    arguments = ("--replicas", "1", "--stages", "half=2", "--stage-replicas", "half=1,2")
    with LocalCluster(repository, tmp_path_factory.mktemp("serving"), *arguments, environment=cache) as cluster:
        yield start(cluster)


def row(cluster: LocalCluster, model: str) -> list[str]:
    return next(line.split() for line in cluster.out.splitlines() if line.split()[:1] == [model])


def test_the_table_tells_stages_and_replicas_of_each_model(serving: LocalCluster) -> None:
    assert row(serving, "skips")[:4] == ["skips", "1", "2", "1+1"]
    assert row(serving, "half")[:4] == ["half", "1", "2", "1+2"]
    assert row(serving, "whole")[:4] == ["whole", "1", "1", "1"]
    assert len(serving.role("shardline.replica")) == 1 + 2 + 3


def test_status_and_models_show_the_stages(serving: LocalCluster) -> None:
    status = serving.command("status").stdout
    for pool, ready in (("skips:1/0", "1"), ("skips:1/1", "1"), ("half:1/1", "2"), ("whole:1/0", "1")):
        assert re.search(rf"^ +{pool} +{ready} ", status, re.MULTILINE), status
    assert "healthy" in status
    models = serving.command("models").stdout
    assert re.search(r"^ +half +1 +READY +1\+2 ", models, re.MULTILINE), models


def test_a_stage_that_died_is_started_again_and_serves(serving: LocalCluster) -> None:
    feeds = CASES["skips"].feeds(2)
    before = ask(serving.url, "skips", feeds)
    victims = [process for process in serving.role("shardline.replica") if "skips" in _stage_of(process.pid)]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    until(lambda: "replica skips:1/1 ended (killed by SIGKILL)" in serving.err, 60, "its end is told")

    def answers_again() -> bool:
        done = serving.command("infer", "skips", "--json")
        return done.returncode == 0

    until(answers_again, 120, "both stages serve again")
    after = ask(serving.url, "skips", feeds)
    assert np.array_equal(before["y"], after["y"])
    assert {entry["replica"] for entry in before.receipt}.isdisjoint(entry["replica"] for entry in after.receipt)


def _stage_of(pid: int) -> str:
    with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
        found = [part for part in file.read().split(b"\0") if part.startswith(b"SHARDLINE_STAGE=")]
    return found[0].decode() if found else ""


def test_a_cluster_of_split_models_only_finds_their_stages_kept_and_has_no_replica_of_whole_models(
    serving: LocalCluster, repository: Path, cache: dict[str, str], tmp_path: Path
) -> None:
    with LocalCluster(repository, tmp_path / "again", "--models", "skips", environment=cache) as cluster:
        start(cluster)
        assert "checking the stages of skips" in cluster.err
        assert "planning" not in cluster.err
        assert len(cluster.role("shardline.replica")) == 2
        assert serving.process is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--stages", "whole=2"), "model whole cannot be split: "),
        (("--stages", "skips=99"), "model skips cannot be split: "),
        (("--stages", "half=1Mi"), "memory"),
        (("--stages", "half=2", "--stage-replicas", "half=1,1,1"), "is for 3 stages, the plan has 2"),
        (("--stages", "nobody=2"), "no such model is served"),
        (("--stages", "half=./nowhere"), "holds no plan.json"),
    ],
)
def test_what_cannot_be_split_ends_the_start_with_one_line(
    repository: Path, cache: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    with LocalCluster(repository, tmp_path / "refused", *arguments, "--quiet", environment=cache) as cluster:
        cluster.start()
        assert cluster.wait(READY_S) == 1
        assert says in cluster.err
        assert cluster.err.count("\n") == 1
        assert cluster.out == ""
        until(lambda: not cluster.survivors(), 30, "nothing is left")


def test_a_start_that_is_interrupted_while_it_plans_leaves_nothing(tmp_path: Path) -> None:
    fresh = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    arguments = ("--models", "minilm", "--stages", "minilm=2")
    with LocalCluster(MODELS, tmp_path / "interrupted", *arguments, environment=fresh) as cluster:
        cluster.start()
        until(lambda: "planning minilm: 1 of" in cluster.err or cluster.ended, READY_S, cluster.err)
        assert cluster.role("shardline.local.cutting")
        cluster.signal(signal.SIGINT)
        assert cluster.wait(60) == 0
        until(lambda: not cluster.survivors() and not cluster.left_behind(), 30, f"{cluster.left_behind()}")
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.name == "plan.json"]


def test_a_plan_made_by_the_plan_command_is_served_as_it_is(
    repository: Path, cache: dict[str, str], tmp_path: Path
) -> None:
    with LocalCluster(
        repository, tmp_path / "planned", "--models", "half", "--stages", f"half={tmp_path}/plan", environment=cache
    ) as cluster:
        done = cluster.command(
            "plan", str(repository / "half"), "--stages", "3", "--estimate", "--out", f"{tmp_path}/plan"
        )
        assert done.returncode == 0, done.stderr
        start(cluster)
        assert row(cluster, "half")[2:4] == ["3", "1+1+1"]


@pytest.fixture(scope="module")
def examples(cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The example models in stages, by the repository that `make models` fills."""
    arguments = ("--models", "minilm,resnet50", "--stages", "minilm=2", "--stages", "resnet50=3", "--plan-estimate")
    with LocalCluster(MODELS, tmp_path_factory.mktemp("examples"), *arguments, environment=cache) as cluster:
        yield start(cluster)


@pytest.mark.parametrize(("model", "stages"), [("minilm", 2), ("resnet50", 3)])
def test_the_example_models_answer_as_onnx_runtime_does_with_the_whole(
    examples: LocalCluster, model: str, stages: int
) -> None:
    feeds = _feeds(model)
    session = onnxruntime.InferenceSession(f"{MODELS}/{model}/1/model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feeds), strict=True))
    answer = ask(examples.url, model, feeds)
    assert {entry["stage"] for entry in answer.receipt} == {str(stage) for stage in range(stages)}
    for name, array in expected.items():
        assert np.max(np.abs(answer[name] - array)) <= 1e-5 * np.max(np.abs(array)), name


def _feeds(model: str) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(7)
    if model == "resnet50":
        return {"image": random.standard_normal((2, 3, 224, 224)).astype(np.float32)}
    ids = random.integers(1000, 2000, (3, 21))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
