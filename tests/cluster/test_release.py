"""What a user does and what goes wrong, on a real cluster."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.release import CLI, ROOT, VALUES, Release, cluster, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
ROUTER = "app.kubernetes.io/component=router"
REDIS = "app.kubernetes.io/component=redis"
REPLICA = "shardline.dev/model=digits"
CHART = str(ROOT / "charts/shardline")


def ended(release: Release, pod: str) -> bool:
    return release.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Succeeded"


def reached(address: str) -> bool:
    command = ("exec", "1", *CLI, "infer", "digits", "--url", address)
    return "digits version 1" in cluster(*command, check=False)


def names(release: Release, selector: str) -> set[str]:
    return {item["metadata"]["name"] for item in release.get("pods", selector)}


def test_a_model_answers_and_its_object_says_so(release: Release) -> None:
    assert "digits version 1" in release.infer("digits")
    shown = release.kubectl("get", "models")
    assert "2/2" in shown
    assert "Serving" in shown
    cluster("helm", "test", "first", "-n", "first")


def test_replicas_are_spread_over_both_nodes(release: Release) -> None:
    assert {item["spec"]["nodeName"] for item in release.get("pods", REPLICA)} == {"node1", "node2"}


def test_a_replica_killed_under_load_costs_no_client_an_error(release: Release) -> None:
    victim = min(names(release, REPLICA))
    with release.load("digits") as load:
        release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        until("the pod is replaced", lambda: victim not in names(release, REPLICA) and release.settled("digits"))
    assert load.errors == {}
    assert load.answered > 100


def test_losing_redis_under_load_costs_no_client_an_error(release: Release) -> None:
    before = release.get("pods", "app.kubernetes.io/component=redis")[0]["metadata"]["uid"]
    with release.load("digits") as load:
        release.kubectl("delete", "pod", min(names(release, REDIS)), "--grace-period=0", "--force")
        until("another Redis is there", lambda: [
            p for p in release.get("pods", "app.kubernetes.io/component=redis")
            if p["metadata"]["uid"] != before and p["status"]["phase"] == "Running"
        ])  # fmt: skip
    assert load.errors == {}
    assert load.answered > 100


def test_a_changed_model_rolls_without_an_error(release: Release) -> None:
    before = names(release, REPLICA)
    with release.load("digits") as load:
        release.serve("digits", replicas=2, drainSeconds=11)
        until("all pods are new", lambda: not before & names(release, REPLICA) and release.settled("digits"))
    assert load.errors == {}
    assert load.answered > 100


def test_a_rollout_completes_although_its_controller_is_killed(release: Release) -> None:
    before = names(release, REPLICA)
    release.serve("digits", replicas=2, drainSeconds=12)
    release.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=controller", "--grace-period=0", "--force")
    until("all pods are new", lambda: not before & names(release, REPLICA) and release.settled("digits"), 120)


def test_an_upgraded_release_rolls_its_routers_and_rolls_back(release: Release) -> None:
    before = names(release, ROUTER)
    release.helm("upgrade", "--set", "router.rowsInFlight=4096")
    until("routers are new", lambda: not before & names(release, ROUTER))
    assert "digits version 1" in release.infer("digits")
    cluster("helm", "rollback", "first", "1", "-n", "first", "--wait", "--timeout", "180s")
    assert "digits version 1" in release.infer("digits")


@pytest.mark.parametrize(
    ("name", "spec", "reason", "words"),
    [
        ("corrupt", {}, "ModelBroken", "not an ONNX model"),
        ("missing", {}, "ModelBroken", "model 'missing': it is not in the repository"),
        ("huge", {"model": "digits", "resources": {"limits": {"memory": "900Gi"}}}, "NoRoom", "Insufficient memory"),
    ],
)
def test_a_bad_model_says_why_and_harms_no_other(
    release: Release, name: str, spec: dict[str, object], reason: str, words: str
) -> None:
    release.serve(name, **spec)
    try:
        until(f"{name} is {reason}", lambda: release.condition(name, "Ready").get("reason") == reason)
        condition = release.condition(name, "Ready")
        assert condition["status"] == "False"
        assert words in condition["message"]
        assert "digits version 1" in release.infer("digits")
    finally:
        release.kubectl("delete", "model", name, "--timeout=120s")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"repository": {}}, "exactly one of"),
        ({"repository": {"hostPath": {"path": "/a/../b"}}}, "no '..'"),
        ({"replicas": -1}, "should be greater than or equal to 0"),
    ],
)
def test_nonsense_is_refused_by_the_api_server(release: Release, spec: dict[str, object], words: str) -> None:
    whole = {"repository": {"hostPath": {"path": "/models"}}, **spec}
    manifest = {"apiVersion": "shardline.dev/v1alpha1", "kind": "Model", "metadata": {"name": "x"}, "spec": whole}
    with pytest.raises(AssertionError, match=words):
        release.kubectl("apply", "-f", "-", text=json.dumps(manifest))


def test_a_strangers_pod_reaches_neither_redis_nor_replicas(release: Release) -> None:
    """NetworkPolicies: the same attempt with and without our label."""
    script = (
        "import socket,sys,time\n"
        "end=time.time()+8\n"
        "while time.time()<end:\n"
        "    try: socket.create_connection((sys.argv[1],6379),1).close(); print('reached'); break\n"
        "    except OSError: time.sleep(.2)\n"
        "else: print('refused')\n"
    )
    where = json.loads(release.kubectl("get", "service", "first-redis", "-o", "json"))["spec"]["clusterIP"]
    ours = "app.kubernetes.io/name=shardline,app.kubernetes.io/instance=first,app.kubernetes.io/component=replica"
    for labels, expected in ((ours, "reached"), ("app=stranger", "refused")):
        name = expected
        # A pod's first second is open on this cluster: the policy is enforced by looking once a second.
        command = ["python", "-c", "import time; time.sleep(4)\n" + script, where]
        release.kubectl(
            "run", name, "--image=shardline:dev", "--image-pull-policy=Never", "--restart=Never", f"--labels={labels}",
            "--command", "--", *command,
        )  # fmt: skip
        until("the pod ends", functools.partial(ended, release, name))
        assert release.kubectl("logs", name).strip() == expected
        release.kubectl("delete", "pod", name)


def test_a_second_release_sees_nothing_of_the_first_and_leaves_nothing_behind(release: Release, models: Path) -> None:
    second = Release("second", "second", models)
    second.install("--set", "router.replicas=1", "--set", "controller.replicas=1")
    try:
        with pytest.raises(AssertionError):
            second.infer("digits")
        second.serve("digits")
        until("the second release serves", lambda: second.settled("digits"))
        assert "digits version 1" in second.infer("digits")
    finally:
        cluster("helm", "uninstall", "second", "-n", "second", "--wait", "--timeout", "180s")
    kinds = (
        "models.shardline.dev,deployments,statefulsets,services,pods,secrets,jobs,roles,rolebindings,networkpolicies"
    )

    def left() -> list[str]:
        found = second.kubectl("get", kinds, "-o", "name").split()
        return [name for name in found if not name.startswith("pod/second-uninstall")]

    until("nothing is left", lambda: not left())
    cluster("kubectl", "delete", "namespace", "second")
    assert "digits version 1" in release.infer("digits")


@pytest.mark.parametrize("values", [None, VALUES, *sorted((ROOT / "charts/shardline/ci").glob("*.yaml"))])
def test_the_chart_lints(nodes: None, values: Path | None) -> None:
    cluster("helm", "lint", "--strict", CHART, *(["-f", str(values)] if values else []))


@pytest.mark.parametrize("wrong", ["router.replica=3", "router.front=apache", "redis.bundled=false", "log.level=loud"])
def test_a_wrong_value_is_refused(nodes: None, wrong: str) -> None:
    with pytest.raises(AssertionError, match="values don't meet the specifications"):
        cluster("helm", "template", "r", CHART, "--set", wrong)


def test_a_rollout_completes_although_the_api_server_restarts(release: Release) -> None:
    before = names(release, REPLICA)
    release.serve("digits", replicas=2, drainSeconds=13)
    cluster("restart", "1", "kube-apiserver")
    ready = lambda: cluster("kubectl", "get", "--raw=/readyz", check=False) == "ok"  # noqa: E731
    until("the API server is back", ready)
    until("all pods are new", lambda: not before & names(release, REPLICA) and release.settled("digits"), 120)
    # kube-proxy hears of changes again only when its own back-off is over, which is not what is tested here.
    address = release.address()
    until("the service is reached again", lambda: reached(address), 120)
