"""Which cluster a command means."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.local import statefile

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "127.0.0.1:8001"
KUBE = "kube:"
"""Begins the --url of a namespace on Kubernetes."""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster to talk to. redis: "" where it is not known. found: whether it is one that runs on this machine.

    stages: how many each split model has, by `model:version`, where that is known. kube: the namespace ("": the context's) where it is
    the cluster of the current kube context, else None.
    """

    url: str
    redis: str
    cluster: str
    found: bool
    stages: Mapping[str, int] = field(default_factory=dict)
    kube: str | None = None


def find_target(url: str | None) -> Target:
    """The cluster at `url`; without one the newest that this user runs here, else the kube context's, else the default address."""
    if url is not None and url.startswith(KUBE):
        return Target(url, "", "default", found=False, kube=url.removeprefix(KUBE).strip("/"))
    running = statefile.running()
    if url is None:
        if not running:
            return Target(DEFAULT_URL, "", "default", found=False, kube="" if kubeconfig_exists() else None)
        return _target(running[0], running[0].endpoint)
    for cluster in running:
        if _same(cluster.endpoint, url):
            return _target(cluster, url)
    return Target(url, "", "default", found=False)


def kubeconfig_exists() -> bool:
    """Whether this user has a kubeconfig: $KUBECONFIG, else ~/.kube/config."""
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return any(Path(path).expanduser().is_file() for path in named.split(os.pathsep) if path)


def _target(cluster: statefile.RunningCluster, url: str) -> Target:
    return Target(url, cluster.redis, cluster.cluster, found=True, stages=cluster.stages)


def _same(endpoint: str, url: str) -> bool:
    host, _, port = url.rpartition("://")[2].rpartition(":")
    return endpoint == url or (host in ("localhost", "127.0.0.1") and endpoint == f"127.0.0.1:{port}")
