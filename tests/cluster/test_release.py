"""What a user does and what goes wrong, on a real cluster."""

from __future__ import annotations

import json

import pytest

from tests.cluster.release import Release, cluster, infer, node, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
ROUTER = "app.kubernetes.io/component=router"
REDIS = "app.kubernetes.io/component=redis"
REPLICA = "shardline.dev/model=digits"


def names(release: Release, selector: str) -> set[str]:
    return {item["metadata"]["name"] for item in release.get("pods", selector)}


def replaced(release: Release, before: set[str]) -> bool:
    """Whether none of the replicas from before is left, and the new ones serve."""
    return not before & names(release, REPLICA) and release.settled("digits")


def test_a_model_answers_and_its_object_says_so(release: Release) -> None:
    assert "digits version 1" in release.infer("digits")
    cluster("helm", "test", "first", "-n", "first", "--timeout", "180s")
    with release.load("digits", callers=4):
        until(
            "its traffic is told", lambda: {"rate", "p99"} <= set(release.model("digits")["status"].get("traffic", {}))
        )
    columns, shown = (line.split() for line in release.kubectl("get", "models", "digits").splitlines())
    assert columns == ["NAME", "READY", "REPLICAS", "VERSION", "RATE", "P99", "REASON", "AGE"]
    row = dict(zip(columns, shown, strict=True))
    assert (row["READY"], row["REPLICAS"], row["VERSION"], row["REASON"]) == ("True", "2/2", "1", "Serving")
    assert row["P99"].endswith("ms")


def test_replicas_are_spread_over_both_nodes(release: Release) -> None:
    before = names(release, REPLICA)
    release.kubectl("delete", "pods", "-l", REPLICA)
    until("there are others", lambda: replaced(release, before))
    assert {item["spec"]["nodeName"] for item in release.get("pods", REPLICA)} == {node(1), node(2)}


def test_a_replica_killed_under_load_costs_no_client_an_error(release: Release) -> None:
    victim = min(names(release, REPLICA))
    with release.load("digits") as load:
        release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        until("the pod is replaced", lambda: victim not in names(release, REPLICA) and release.settled("digits"))
    assert load.errors == {}
    assert load.answered > 100


def test_losing_redis_under_load_costs_no_client_an_error(release: Release) -> None:
    (before,) = release.get("pods", REDIS)
    with release.load("digits") as load:
        release.kubectl("delete", "pod", before["metadata"]["name"], "--grace-period=0", "--force")
        until("another Redis is there", lambda: [
            pod for pod in release.get("pods", REDIS)
            if pod["metadata"]["uid"] != before["metadata"]["uid"] and pod["status"]["phase"] == "Running"
        ])  # fmt: skip
    assert load.errors == {}
    assert load.answered > 100


def test_a_changed_model_rolls_without_an_error(release: Release) -> None:
    before = names(release, REPLICA)
    with release.load("digits") as load:
        release.serve("digits", replicas=2, drainSeconds=11)
        until("all pods are new", lambda: replaced(release, before))
    assert load.errors == {}
    assert load.answered > 100


def test_a_rollout_completes_although_its_controller_is_killed(release: Release) -> None:
    before = names(release, REPLICA)
    release.serve("digits", replicas=2, drainSeconds=12)
    until("the rollout has begun", lambda: names(release, REPLICA) - before)
    release.kubectl("delete", "pods", "-l", "app.kubernetes.io/component=controller", "--grace-period=0", "--force")
    until("all pods are new", lambda: replaced(release, before))


def test_an_upgraded_release_rolls_its_routers_and_rolls_back(release: Release) -> None:
    """To the other gRPC server at the edge and back: neither loses a call when it stops."""
    routers, replicas = names(release, ROUTER), names(release, REPLICA)
    with release.load("digits", callers=8, connections=4) as load:
        release.helm("upgrade", "--set", "log.level=warning,router.front=native")
        until("routers are new", lambda: not routers & names(release, ROUTER))
        until("replicas are new", lambda: replaced(release, replicas))
        replicas = names(release, REPLICA)
        cluster("helm", "rollback", "first", "-n", "first", "--wait", "--timeout", "300s")
        until("replicas are new once more", lambda: replaced(release, replicas))
    assert load.errors == {}
    assert load.answered > 100
    assert "digits version 1" in release.infer("digits")


def test_connections_from_before_reach_a_router_that_was_added(release: Release) -> None:
    """A ClusterIP service picks a router for a connection, not for a call: connections must not live for ever."""
    release.kubectl("scale", "deployment/first-router", "--replicas=1")
    until("one router is left", lambda: len(names(release, ROUTER)) == 1)
    first = names(release, ROUTER)
    try:
        with release.load("digits", callers=8, connections=8) as load:
            release.kubectl("scale", "deployment/first-router", "--replicas=2")
            until("the added router is there", lambda: len(names(release, ROUTER)) == 2)
            (added,) = names(release, ROUTER) - first
            until("the added router answers calls", lambda: answered_by(release, added) > 0)
    finally:
        release.kubectl("scale", "deployment/first-router", "--replicas=2")
    assert load.errors == {}


def answered_by(release: Release, pod: str) -> float:
    """How many calls a router has answered, by its own count."""
    item = json.loads(release.kubectl("get", "pod", pod, "-o", "json"))
    if not (ip := item["status"].get("podIP")):
        return 0.0
    script = f"import urllib.request as u; print(u.urlopen('http://{ip}:8002/metrics', timeout=5).read().decode())"
    text = cluster("exec", "1", "python3", "-c", script, check=False)
    lines = [
        line for line in text.splitlines() if line.startswith("shardline_requests_total{") and 'model="digits"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_version_is_pinned_and_changed_without_an_error(release: Release) -> None:
    release.serve("versions", version=1, drainSeconds=5)
    until("versions is served", lambda: release.settled("versions"))
    assert "versions version 1" in release.infer("versions")
    try:
        with release.load("versions", callers=4) as load:
            release.serve("versions", version=2, drainSeconds=5)
            until("version 2 is served", lambda: release.model("versions")["status"].get("version") == "2")
            until("version 1 is gone", lambda: release.settled("versions"))
        assert load.errors == {}
        assert "versions version 2" in release.infer("versions")
        release.serve("versions", version=7, drainSeconds=5)
        until("the reason is told", lambda: release.condition("versions", "Progressing").get("reason") == "Stalled")
        assert "version 7" in release.condition("versions", "Progressing")["message"]
        assert "versions version 2" in release.infer("versions"), "what served before goes on"
        release.serve("versions", version=2, resources={"limits": {"memory": "900Gi"}}, drainSeconds=5)
        told = "it is told that no node is large enough"
        until(told, lambda: "Insufficient memory" in release.condition("versions", "Progressing").get("message", ""))
        assert "versions version 2" in release.infer("versions"), "and no old pod makes room in vain"
    finally:
        release.kubectl("delete", "model", "versions", "--cascade=foreground", "--timeout=120s")


def test_a_model_is_scaled_paused_and_kept_as_it_should_be(release: Release) -> None:
    release.kubectl("scale", "model", "digits", "--replicas=3")
    until("a third replica is there", lambda: len(names(release, REPLICA)) == 3 and release.settled("digits"))
    deployment = release.get("deployments", REPLICA)[0]["metadata"]["name"]
    release.kubectl("delete", "service", "digits-s0")
    release.kubectl("scale", f"deployment/{deployment}", "--replicas=1")
    until("drift is repaired", lambda: len(names(release, REPLICA)) == 3 and release.settled("digits"))
    release.kubectl("get", "service", "digits-s0")
    release.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"paused": true, "replicas": 2}}')
    until("it says that it is paused", lambda: release.condition("digits", "Progressing").get("reason") == "Paused")
    assert len(names(release, REPLICA)) == 3
    release.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"paused": false}}')
    until("two replicas are left", lambda: len(names(release, REPLICA)) == 2 and release.settled("digits"))


def test_a_model_that_is_deleted_under_load_finishes_what_it_accepted(release: Release) -> None:
    release.serve("versions", drainSeconds=20)
    until("versions is served", lambda: release.settled("versions"))
    with release.load("versions", callers=8) as load:
        release.kubectl("delete", "model", "versions", "--cascade=foreground", "--timeout=120s")
    assert load.answered > 100
    told = ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE")
    assert [text for text in load.errors if not any(word in text for word in told)] == []
    assert load.errors, "callers went on after it was gone"


def test_a_model_that_is_deleted_while_it_starts_goes_without_the_time_to_drain(release: Release) -> None:
    """Nothing was accepted yet, and a signal that comes before its handler must not be lost."""
    release.serve("versions", replicas=2, drainSeconds=900)
    selector = "shardline.dev/model=versions"
    until("it starts", lambda: any(pod["status"]["phase"] == "Running" for pod in release.get("pods", selector)))
    release.kubectl("delete", "model", "versions", "--cascade=foreground", "--timeout=120s")


def test_a_change_completes_without_an_error_although_every_gpu_is_taken(release: Release) -> None:
    """A surge would wait for ever for what the old pods hold."""
    selector = "shardline.dev/model=gpus"
    spec = {"model": "versions", "replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    for number in (1, 2):
        gpu = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]
        cluster("kubectl", "patch", "node", node(number), "--subresource=status", "--type=json", "-p", json.dumps(gpu))
    try:
        release.serve("gpus", **spec, drainSeconds=5)
        until("every GPU is taken", lambda: release.settled("gpus"))
        before = names(release, selector)
        with release.load("versions", callers=4) as load:
            release.serve("gpus", **spec, drainSeconds=6)
            until("all pods are new", lambda: not before & names(release, selector) and release.settled("gpus"))
        assert load.errors == {}
        assert load.answered > 100
    finally:
        release.kubectl("delete", "model", "gpus", "--cascade=foreground", "--timeout=120s", "--ignore-not-found")
        for number in (1, 2):
            none = [{"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"}]
            patch = ("patch", "node", node(number), "--subresource=status", "--type=json", "-p", json.dumps(none))
            cluster("kubectl", *patch, check=False)


@pytest.mark.parametrize(
    ("name", "spec", "reason", "words"),
    [
        ("corrupt", {}, "ModelBroken", "not an ONNX model"),
        ("missing", {}, "ModelBroken", "model 'missing': it is not in the repository"),
        ("huge", {"model": "digits", "resources": {"limits": {"memory": "900Gi"}}}, "NoRoom", "Insufficient memory"),
        ("uncut", {"model": "digits", "stages": 60}, "PlanFailed", "cannot be cut into 60 stages"),
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
        told = until("there is an event", lambda: [
            line for line in release.kubectl("describe", "model", name).splitlines() if "Warning" in line and reason in line
        ])  # fmt: skip
        assert any(words in line for line in told)
        assert "digits version 1" in release.infer("digits")
    finally:
        release.kubectl("delete", "model", name, "--cascade=foreground", "--timeout=120s")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"repository": {}}, "exactly one of"),
        ({"repository": {"hostPath": {"path": "/a/../b"}}}, "no '..'"),
        ({"replicas": -1}, "should be greater than or equal to 0"),
        ({"stages": "many"}, "auto, or a number from 1 to 64"),
        ({"stages": 2, "stageReplicas": [1, 2, 3]}, "one number for each of the stages"),
        ({"replica": 3}, "unknown field"),
    ],
)
def test_nonsense_is_refused_by_the_api_server(release: Release, spec: dict[str, object], words: str) -> None:
    whole = {"repository": {"hostPath": {"path": "/models"}}, **spec}
    manifest = {"apiVersion": "shardline.dev/v1alpha1", "kind": "Model", "metadata": {"name": "x"}, "spec": whole}
    with pytest.raises(AssertionError, match=words):
        release.kubectl("apply", "-f", "-", text=json.dumps(manifest))


def test_pods_have_no_more_rights_than_they_need(release: Release) -> None:
    pods = release.get("pods", "app.kubernetes.io/instance=first")
    parts = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert parts >= {"router", "replica", "controller", "redis"}
    for pod in pods:
        spec, name = pod["spec"], pod["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        needs_token = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"
        assert any("projected" in volume for volume in spec["volumes"]) is needs_token, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], name
            assert not security["allowPrivilegeEscalation"], name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name


def test_the_controller_may_look_at_its_own_namespace_only(release: Release) -> None:
    account = ("--as", "system:serviceaccount:first:first-controller")
    assert release.kubectl("auth", "can-i", "list", "pods", *account).strip() == "yes"
    for verb, kind in (("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("create", "pods/exec")):
        assert release.kubectl("auth", "can-i", verb, kind, *account, check=False).strip() == "no", (verb, kind)
    for verb, kind in (("list", "pods"), ("list", "models.shardline.dev"), ("delete", "deployments.apps")):
        answer = cluster("kubectl", "-n", "default", "auth", "can-i", verb, kind, *account, check=False)
        assert answer.strip() == "no", (verb, kind)


def test_a_strangers_pod_reaches_neither_redis_nor_replicas(release: Release) -> None:
    """NetworkPolicies: the same attempts with and without our label."""
    redis = json.loads(release.kubectl("get", "service", "first-redis", "-o", "json"))["spec"]["clusterIP"]
    replica = release.get("pods", REPLICA)[0]["status"]["podIP"]
    goals = [f"{redis}:6379", f"{replica}:8003", f"{replica}:8004"]
    ours = {
        "app.kubernetes.io/name": "shardline",
        "app.kubernetes.io/instance": "first",
        "app.kubernetes.io/component": "replica",
    }
    assert attempts(release, "ours", ours, goals) == dict.fromkeys(goals, "reached")
    assert attempts(release, "stranger", {"app": "stranger"}, goals) == dict.fromkeys(goals, "refused")


def attempts(release: Release, name: str, labels: dict[str, str], goals: list[str]) -> dict[str, str]:
    """What a pod with these labels reaches of HOST:PORT. Its first second is open on this cluster: policies are enforced by looking."""
    script = (
        "import json, socket, sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "time.sleep(5)\n"
        "def reach(goal):\n"
        "    host, port = goal.split(':')\n"
        "    for _ in range(4):\n"
        "        try:\n"
        "            socket.create_connection((host, int(port)), 2).close()\n"
        "            return 'reached'\n"
        "        except OSError:\n"
        "            time.sleep(0.2)\n"
        "    return 'refused'\n"
        "found = dict(zip(sys.argv[1:], ThreadPoolExecutor(9).map(reach, sys.argv[1:])))\n"
        "print(json.dumps(found))\n"
    )
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "try",
        "image": "shardline:dev",
        "imagePullPolicy": "Never",
        "command": ["python", "-c", script, *goals],
        "securityContext": security,
    }
    pod_security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": pod_security, "containers": [container]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    release.kubectl("apply", "-f", "-", text=json.dumps(manifest))
    try:
        path = ("get", "pod", name, "-o", "jsonpath={.status.phase}")
        until(f"the pod {name} ends", lambda: release.kubectl(*path) == "Succeeded")
        found: dict[str, str] = json.loads(release.kubectl("logs", name))
        return found
    finally:
        release.kubectl("delete", "pod", name)


def test_a_rollout_completes_although_the_api_server_restarts(release: Release) -> None:
    before = names(release, REPLICA)
    release.serve("digits", replicas=2, drainSeconds=13)
    until("the rollout has begun", lambda: names(release, REPLICA) - before)
    # To a router and not to the service: that is kube-proxy's, which is not tested here.
    with release.load("digits", address=release.router_on(1)) as load:
        cluster("restart", "1", "kube-apiserver")
        ready = lambda: cluster("kubectl", "get", "--raw=/readyz", check=False) == "ok"  # noqa: E731
        until("the API server is back", ready)
        until("all pods are new", lambda: replaced(release, before), 300)
    assert load.errors == {}
    assert load.answered > 100
    # kube-proxy hears of changes again only when its own back-off is over, which is not what is tested here.
    address = release.address()
    until("the service is reached again", lambda: "digits version 1" in infer("digits", address, check=False))
