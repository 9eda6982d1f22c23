"""A model in stages over several pods: planned, verified and served by one object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.cluster.release import Release, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
SPLIT = "shardline.dev/model=split,app.kubernetes.io/component=replica"


@pytest.fixture(scope="module")
def split(release: Release) -> Iterator[Release]:
    """The release, with `split` in two stages, the second twice."""
    release.serve("split", stages=2, stageReplicas=[1, 2], drainSeconds=10)
    until("both stages are served", lambda: release.settled("split"))
    yield release
    release.kubectl("delete", "model", "split", "--cascade=foreground", "--timeout=120s")


def pods(release: Release) -> dict[str, list[str]]:
    """Pods by stage."""
    found: dict[str, list[str]] = {}
    for pod in release.get("pods", SPLIT):
        found.setdefault(pod["metadata"]["labels"]["shardline.dev/stage"], []).append(pod["metadata"]["name"])
    return found


def test_stages_answer_as_the_whole_model_does(split: Release, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.random.default_rng(7).random((5, 64), np.float32))
    given = ("--input", f"image=@{tmp_path / 'image.npy'}", "--json")
    whole, staged = (json.loads(split.infer(model, *given)) for model in ("digits", "split"))
    assert {entry["stage"] for entry in staged["receipt"]} == {"0", "1"}
    assert staged["outputs"]["label"]["data"] == whole["outputs"]["label"]["data"]
    np.testing.assert_allclose(
        staged["outputs"]["probabilities"]["data"], whole["outputs"]["probabilities"]["data"], rtol=1e-5
    )


def test_the_object_tells_of_its_stages_and_its_plan(split: Release) -> None:
    assert {stage: len(names) for stage, names in pods(split).items()} == {"0": 1, "1": 2}
    status = split.model("split")["status"]
    assert status["summary"] == "1/1 2/2"
    assert status["plan"].startswith("2 stages of ")
    assert split.get("jobs", "shardline.dev/model=split") == [], "the job that planned has gone"


def test_each_stage_has_only_its_own_weights(split: Release) -> None:
    for stage, names in pods(split).items():
        found = split.kubectl("exec", names[0], "--", "python", "-c", "import os; print(os.listdir('/cache'))")
        assert f"-s{stage}'" in found
        script = "import pathlib; print([p.parent.name for p in pathlib.Path('/cache').glob('*/stage-*/model.onnx')])"
        assert split.kubectl("exec", names[0], "--", "python", "-c", script).strip() == f"['stage-{stage}']"


def test_a_stages_replica_killed_under_load_costs_no_client_an_error(split: Release) -> None:
    victim = min(pods(split)["1"])
    with split.load("split", callers=8) as load:
        split.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        until("the pod is replaced", lambda: victim not in pods(split)["1"] and split.settled("split"))
    assert load.errors == {}
    assert load.answered > 100


def test_another_plan_rolls_out_under_load_without_an_error(split: Release) -> None:
    before = {name for names in pods(split).values() for name in names}
    with split.load("split", callers=8) as load:
        split.serve("split", stages=3, drainSeconds=10)
        until("three stages serve", lambda: split.settled("split") and set(pods(split)) == {"0", "1", "2"})
        split.serve("split", drainSeconds=10)
        until("the whole serves", lambda: split.settled("split") and set(pods(split)) == {"0"})
        split.serve("split", stages=2, stageReplicas=[1, 2], drainSeconds=10)
        until("two stages serve", lambda: split.settled("split") and set(pods(split)) == {"0", "1"})
    assert not before & {name for names in pods(split).values() for name in names}
    assert load.errors == {}
    assert load.answered > 100


def test_pods_come_back_although_the_plan_is_lost_in_redis(split: Release) -> None:
    split.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=redis", "--grace-period=0", "--force")
    split.kubectl("delete", "pods", "-l", SPLIT, "--grace-period=0", "--force")
    until("both stages are served again", lambda: split.settled("split"))
    until("it answers", lambda: "split version 1" in split.infer("split"))
