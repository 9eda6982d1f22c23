"""A node that dies, and one whose cable is cut. Replicas are spread over both; the router on the other node goes on."""

from __future__ import annotations

import functools

import pytest

from tests.cluster.release import Release, cluster, infer, is_ready, node, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
DIGITS = "shardline.dev/model=digits"


def settle(release: Release) -> None:
    """Both nodes there, and replicas and routers on both, whatever the test before left."""
    until("both nodes take pods", both_nodes_take_pods)
    until("digits is whole again", lambda: release.settled("digits"))
    for selector in ("app.kubernetes.io/component=router", DIGITS):
        if not is_spread(release, selector):
            release.kubectl("delete", "pods", "-l", selector)
        until(f"{selector} is on both nodes", functools.partial(is_spread, release, selector))
    until("digits is whole again", lambda: release.settled("digits"))
    release.kubectl("rollout", "status", "deployment/first-router", "--timeout=180s")


def both_nodes_take_pods() -> bool:
    """Whether no node has a taint: one that is back is Ready some seconds before that."""
    taints = cluster("kubectl", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}", check=False)
    return not taints.strip() and cluster("kubectl", "get", "nodes", check=False).count(" Ready") == 2


def nodes_of(release: Release, selector: str) -> set[str]:
    """Where the ready pods of a selector are."""
    return {pod["spec"]["nodeName"] for pod in release.get("pods", selector) if is_ready(pod)}


def is_spread(release: Release, selector: str) -> bool:
    return len(nodes_of(release, selector)) == 2


def move(release: Release, selector: str, goal: int) -> None:
    """Put the one pod of a selector on a node."""
    other = node(3 - goal)
    cluster("kubectl", "cordon", other)
    try:
        for pod in release.get("pods", selector):
            if pod["spec"].get("nodeName") != node(goal):
                release.kubectl("delete", "pod", pod["metadata"]["name"])
        until(f"{selector} is on node {goal}", lambda: on_node(release, selector, goal))
    finally:
        cluster("kubectl", "uncordon", other)


def on_node(release: Release, selector: str, number: int) -> bool:
    return nodes_of(release, selector) == {node(number)}


def served_by_node1(release: Release) -> bool:
    """Whether Kubernetes has given node 2 up and replaced its replica."""
    pods = release.get("pods", DIGITS)
    return sum(pod["spec"].get("nodeName") == node(1) and is_ready(pod) for pod in pods) >= 2


@pytest.mark.parametrize(("lose", "regain"), [("kill-node", "start-node"), ("cut", "join")])
def test_losing_a_node_under_load_costs_no_client_of_the_other_an_error(
    release: Release, lose: str, regain: str
) -> None:
    settle(release)
    try:
        with release.load("digits", address=release.router_on(1)) as load:
            cluster(lose, "2")
            until("the lost replica is replaced on node 1", lambda: served_by_node1(release))
    finally:
        cluster(regain, "2")
    assert load.errors == {}
    assert load.answered > 100
    settle(release)


def test_losing_the_only_pod_of_a_stage_with_its_node_is_told_to_callers_and_mends_itself(release: Release) -> None:
    settle(release)
    release.serve("split", stages=2, drainSeconds=5)
    until("both stages are there", lambda: release.settled("split"))
    for stage, goal in ((0, 1), (1, 2)):
        move(release, f"shardline.dev/model=split,shardline.dev/stage={stage}", goal)
    until("both stages are there", lambda: release.settled("split"))
    address = release.router_on(1)
    try:
        with release.load("split", address=address, callers=4) as load:
            cluster("kill-node", "2")
            until("callers get answers again", lambda: told_and_mended(release, address))
    finally:
        cluster("start-node", "2")
    assert load.answered > 20
    assert load.errors, "the stage was lost, and nobody was told"
    strange = [text for text in load.errors if "UNAVAILABLE" not in text or "retry" not in text]
    assert strange == []
    settle(release)
    release.kubectl("delete", "model", "split", "--cascade=foreground", "--timeout=120s")


def told_and_mended(release: Release, address: str) -> bool:
    """Whether the lost stage has another pod, and a call goes through it."""
    stage = release.get("pods", "shardline.dev/model=split,shardline.dev/stage=1")
    moved = any(pod["spec"].get("nodeName") == node(1) and is_ready(pod) for pod in stage)
    return moved and "split version 1" in infer("split", address, check=False)
