"""What a Model's status says, and where the numbers in it come from."""

from __future__ import annotations

from typing import Any

import pytest

from shardline.controller.cache import doubted
from shardline.controller.conditions import conditions_of
from shardline.controller.election import Move, Sight, decide, look
from shardline.controller.membership import believed_pods, gone, running_pods
from shardline.controller.observed import Observed, Trouble, last_words, trouble_of
from shardline.controller.reflect import CAP_S, pause_s
from shardline.controller.traffic import growth, quantile, read_counts, traffic_of
from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState
from tests.unit.controller.objects import model, pod


def replica(pod_name: str, *pools: PoolKey, state: ReplicaState = ReplicaState.READY) -> ReplicaInfo:
    return ReplicaInfo("r-1", "c", "l", state, pools, "cpu", "h", 1, 0.0, pod=pod_name)


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}, "ImageUnavailable"),
        ({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}}, "PodUnstartable"),
        ({"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "state": {}}, "OutOfMemory"),
        ({"state": {"terminated": {"exitCode": 1, "message": "replica: x is not set"}}}, "ModelBroken"),
    ],
)
def test_each_trouble_has_a_word(container: dict[str, Any], reason: str) -> None:
    trouble = trouble_of([container], "")
    assert trouble is not None
    assert trouble.reason == reason


def test_no_room_says_what_the_scheduler_said() -> None:
    trouble = trouble_of([], "0/2 nodes are available: 2 Insufficient memory.")
    assert trouble is not None
    assert "Insufficient memory" in trouble.message


def test_last_words_find_the_reason_in_a_json_log() -> None:
    assert last_words('{"event": "a"}\n{"event": "replica.failed", "reason": "no such model"}', 1) == "no such model"
    assert last_words("", 3) == "the replica ended with status 3 and said nothing"


def test_a_replica_that_serves_nothing_is_not_ready() -> None:
    ready = pod("r")
    serving = {"r-1": replica(ready.name, PoolKey("digits", 1))}
    empty = {"r-1": replica(ready.name)}
    assert doubted(ready, "digits", serving).ready
    assert not doubted(ready, "digits", empty).ready
    assert doubted(ready, "digits", {}).ready  # Redis may be away


def test_a_broken_model_is_not_ready_and_says_why() -> None:
    broken = pod("r", ready=False, trouble=Trouble("ModelBroken", "model.onnx does not parse", 4))
    ready, progressing = conditions_of(model(), Observed(pods=(broken,)), "r")
    assert (ready.status, ready.reason, ready.message) == (False, "ModelBroken", "model.onnx does not parse")
    assert progressing.reason == "Stalled"


def test_a_pod_that_left_its_slices_takes_its_replica_along() -> None:
    endpoint = {"targetRef": {"kind": "Pod", "name": "p"}, "conditions": {"ready": True, "serving": True}}
    draining = {**endpoint, "conditions": {"ready": False, "serving": True, "terminating": True}}
    lost = {**endpoint, "conditions": {"ready": False, "serving": False}}
    members = {"r-1": replica("p")}
    before = believed_pods([{"endpoints": [endpoint]}])
    assert gone(before, believed_pods([{"endpoints": [draining]}]), members) == []
    assert gone(before, believed_pods([{"endpoints": [lost]}]), members) == [members["r-1"]]
    assert gone(before, believed_pods([{"endpoints": []}]), members) == [members["r-1"]]
    assert gone(frozenset(), frozenset(), members) == []  # not yet believed is not gone


@pytest.mark.parametrize(
    ("sight", "now", "move"),
    [
        (None, 0.0, Move.CREATE),
        (Sight("me", "m", 6.0, 0.0), 99.0, Move.RENEW),
        (Sight("other", "m", 6.0, 10.0), 15.0, Move.WAIT),
        (Sight("other", "m", 6.0, 10.0), 17.0, Move.TAKE),
        (Sight("", "m", 6.0, 10.0), 10.0, Move.TAKE),
    ],
)
def test_who_may_take_the_lease(sight: Sight | None, now: float, move: Move) -> None:
    assert decide(sight, "me", now) is move


def test_a_renewed_lease_is_seen_anew() -> None:
    lease: dict[str, Any] = {
        "metadata": {"resourceVersion": "1"},
        "spec": {"holderIdentity": "o", "leaseDurationSeconds": 6},
    }
    first = look(None, lease, 1.0)
    assert look(first, lease, 5.0).seen_at == 1.0
    lease["metadata"]["resourceVersion"] = "2"
    assert look(first, lease, 5.0).seen_at == 5.0


METRICS = """# TYPE shardline_request_seconds histogram
shardline_request_seconds_bucket{model="digits",version="1",le="0.1"} 90
shardline_request_seconds_bucket{model="digits",version="1",le="+Inf"} 100
shardline_request_seconds_sum{model="digits",version="1"} 5
shardline_request_seconds_count{model="digits",version="1"} 100
"""


def test_rate_and_p99_come_from_what_was_added_since() -> None:
    counts = read_counts(METRICS)
    assert counts == {"digits": {0.1: 90.0, float("inf"): 100.0}}
    grown = growth({"digits": {0.1: 40.0, float("inf"): 50.0}}, counts)
    assert traffic_of([grown], 10.0)["digits"].rate == 5.0
    assert growth({"digits": {0.1: 400.0, float("inf"): 500.0}}, counts) == counts  # the router started anew


def test_a_quantile_lies_within_its_bucket() -> None:
    assert quantile({0.1: 50, 0.2: 100, float("inf"): 100}, 0.75) == pytest.approx(0.15)
    assert quantile({0.1: 0, float("inf"): 0}, 0.99) is None
    assert quantile({0.1: 1, float("inf"): 100}, 0.99) == 0.1


def test_pauses_grow_and_are_bounded() -> None:
    assert pause_s(0, lambda: 1.0) < pause_s(3, lambda: 1.0) < pause_s(50, lambda: 1.0) == CAP_S


def test_a_pod_that_is_ready_is_believed_also_without_its_slices() -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    pods: list[dict[str, Any]] = [
        {"metadata": {"name": "a"}, "status": {"conditions": conditions}},
        {"metadata": {"name": "b"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"metadata": {"name": "c"}},
    ]
    assert running_pods(pods) == {"a"}


def test_a_pod_on_a_silent_node_is_believed_in_until_it_is_given_up() -> None:
    silent = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    dead = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "False"}]
    pods = [
        {"metadata": {"name": "silent"}, "status": {"conditions": silent}},
        {"metadata": {"name": "given-up", "deletionTimestamp": "now"}, "status": {"conditions": silent}},
        {"metadata": {"name": "dead"}, "status": {"conditions": dead}},
    ]
    assert running_pods(pods) == {"silent"}
