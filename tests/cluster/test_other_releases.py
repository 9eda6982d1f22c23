"""Releases beside the first one: with a Redis of their own or of somebody else's, and gone without a trace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.outside import outside_redis
from tests.cluster.release import Release, cluster, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
REPLICA = "shardline.dev/model=digits"


def pods(release: Release) -> set[str]:
    return {item["metadata"]["name"] for item in release.get("pods", REPLICA)}


def test_a_second_release_sees_nothing_of_the_first_and_leaves_nothing_behind(release: Release, models: Path) -> None:
    second = Release("second", "second", models)
    second.remove()
    second.install("--set", "router.replicas=1", "--set", "controller.replicas=1")
    try:
        with pytest.raises(AssertionError):
            second.infer("digits")
        second.serve("digits", drainSeconds=5)
        until("the second release serves", lambda: second.settled("digits"))
        assert "digits version 1" in second.infer("digits")
        second.serve("digits", replicas=0, drainSeconds=5)
        until("it serves no longer", lambda: second.settled("digits") and not second.get("pods", REPLICA))
        with pytest.raises(AssertionError, match="model 'digits' is not known"):
            second.infer("digits")
        assert "digits version 1" in release.infer("digits")
    finally:
        cluster("helm", "uninstall", "second", "-n", "second", "--wait", "--timeout", "300s")
    kinds = (
        "models.shardline.dev,deployments,services,pods,secrets,configmaps,jobs,roles,rolebindings,serviceaccounts,"
        "networkpolicies,poddisruptionbudgets,leases"
    )
    of_kubernetes = {"configmap/kube-root-ca.crt", "serviceaccount/default"}

    def left() -> set[str]:
        return set(second.kubectl("get", kinds, "-o", "name").split()) - of_kubernetes

    until("nothing is left", lambda: not left())
    second.remove()
    assert "digits version 1" in release.infer("digits")


def test_a_release_on_a_redis_of_ones_own_with_copies_on_its_nodes_goes_with_its_namespace(
    release: Release, models: Path, tmp_path: Path
) -> None:
    third = Release("third", "third", models)
    third.remove()
    cache = models.parent / "cache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o777)  # pods run as another user
    values = (
        "router.replicas=1,controller.replicas=1,redis.bundled=false,redis.external.existingSecret=my-redis,"
        "redis.external.caSecret=my-redis-ca,replicas.cache.volume.persistentVolumeClaim.claimName=cache"
    )
    with outside_redis(tmp_path) as (url, authority):
        whole = third.surroundings()
        whole["items"] += third.claim("cache", cache, "ReadWriteMany")
        cluster("kubectl", "apply", "-f", "-", text=json.dumps(whole))
        third.kubectl("create", "secret", "generic", "my-redis", f"--from-literal=url={url}")
        third.kubectl("create", "secret", "generic", "my-redis-ca", f"--from-file=ca.crt={authority}")
        third.helm("install", "--set", values)
        third.serve("digits", drainSeconds=5)
        until("the third release serves", lambda: third.settled("digits"))
        assert "digits version 1" in third.infer("digits")
        assert third.get("pods", "app.kubernetes.io/component=redis") == []
        (copy,) = cache.glob("digits-*")
        made_at = copy.stat().st_ctime_ns
        (copy / "repository/digits/1/model.onnx").write_bytes(b"damaged")
        before = pods(third)
        third.kubectl("delete", "pods", "-l", REPLICA)
        until("another pod serves", lambda: not before & pods(third) and third.settled("digits"))
        assert "digits version 1" in third.infer("digits")
        (copy,) = cache.glob("digits-*")
        assert copy.stat().st_ctime_ns != made_at, "a damaged copy was served"
        third.remove()  # ends with an error if it takes too long
    assert "digits version 1" in release.infer("digits")
