"""The command line on Kubernetes: the same words as locally, through the kubeconfig and forwarded ports alone."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cluster.release import Release, cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def shardline(*arguments: str, check: bool = True) -> str:
    """As a user with a kubeconfig and no local cluster types it."""
    config = cluster("where", "kubeconfig").strip()
    alone = ("env", f"KUBECONFIG={config}", "XDG_RUNTIME_DIR=/nowhere", "TMPDIR=/nowhere")
    return cluster("exec", "1", *alone, sys.executable, "-m", "shardline.cli", *arguments, check=check)


def test_a_model_is_deployed_called_and_shown_with_the_words_of_a_local_cluster(release: Release) -> None:
    told = shardline("deploy", "models/versions", "--version", "1", "-n", "first", "--timeout", "300")
    try:
        assert "Complete" in told
        assert "versions version 1" in shardline("infer", "versions", "--url", "kube:first")
        assert "versions" in shardline("models", "--url", "kube:first")
        status = json.loads(shardline("status", "--url", "kube:first", "--json"))
        assert status["health"] == "healthy"
        assert "versions:1/0" in [pool["pool"] for pool in status["pools"]]
        assert "all 1 replicas are ready" in shardline("status", "--url", "kube:first")
    finally:
        release.kubectl("delete", "model", "versions", "--cascade=foreground", "--timeout=120s")
    until("it is gone", lambda: "versions" not in release.kubectl("get", "models"))


def test_a_broken_model_is_told_by_deploy(release: Release) -> None:
    try:
        with pytest.raises(AssertionError, match="not an ONNX model"):
            shardline("deploy", "models/corrupt", "-n", "first", "--timeout", "300")
    finally:
        release.kubectl("delete", "model", "corrupt", "--cascade=foreground", "--timeout=120s")


def test_the_one_release_of_a_cluster_is_found_without_a_name(release: Release) -> None:
    assert "digits version 1" in shardline("infer", "digits")
    with pytest.raises(AssertionError, match="no release of shardline in namespace default"):
        shardline("infer", "digits", "--url", "kube:default")
