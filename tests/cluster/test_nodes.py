"""A node that dies, and one whose cable is cut. Replicas are spread over both; the router on the other node goes on."""

from __future__ import annotations

import pytest

from tests.cluster.release import Release, cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def router_on_node1(release: Release) -> str:
    routers = release.get("pods", "app.kubernetes.io/component=router")
    found = [item["status"]["podIP"] for item in routers if item["spec"]["nodeName"] == "node1"]
    assert found, "no router on node 1"
    return f"{found[0]}:8001"


def settle(release: Release) -> None:
    """Bring node 2 back, and replicas and routers to both nodes, whatever the test before left."""
    until("node 2 is Ready", lambda: "NotReady" not in cluster("kubectl", "get", "nodes"), 120)
    until("digits is whole again", lambda: release.settled("digits"), 150)
    for component in ("router", "replica"):
        selector = f"app.kubernetes.io/component={component}"
        if len({item["spec"]["nodeName"] for item in release.get("pods", selector)}) < 2:
            release.kubectl("delete", "pods", "-l", selector)
    until("digits is whole again", lambda: release.settled("digits"), 150)
    release.kubectl("rollout", "status", "deployment/first-router", "--timeout=90s")


def served_by_node1(release: Release) -> bool:
    """Whether Kubernetes has given node 2 up and replaced its replica."""
    pods = release.get("pods", "shardline.dev/model=digits")
    ready = [
        item
        for item in pods
        if item["spec"].get("nodeName") == "node1"
        and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
    ]
    return len(ready) >= 2


@pytest.mark.parametrize(("lose", "regain"), [("kill-node", "start-node"), ("cut", "join")])
def test_losing_a_node_under_load_costs_no_client_of_the_other_an_error(
    release: Release, lose: str, regain: str
) -> None:
    settle(release)
    try:
        with release.load("digits", address=router_on_node1(release)) as load:
            cluster(lose, "2")
            until("the lost replica is replaced on node 1", lambda: served_by_node1(release), 90)
    finally:
        cluster(regain, "2")
    assert load.errors == {}
    assert load.answered > 100
    settle(release)
