"""Which cluster a command means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.local import statefile

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "127.0.0.1:8001"


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster to talk to. redis: "" where it is not known. found: whether it is one that runs on this machine.

    stages: how many each split model has, by `model:version`, where that is known.
    """

    url: str
    redis: str
    cluster: str
    found: bool
    stages: Mapping[str, int] = field(default_factory=dict)


def find_target(url: str | None) -> Target:
    """The cluster at `url`; without one the newest that this user runs here, else the default address."""
    running = statefile.running()
    if url is None:
        if not running:
            return Target(DEFAULT_URL, "", "default", found=False)
        return _target(running[0], running[0].endpoint)
    for cluster in running:
        if _same(cluster.endpoint, url):
            return _target(cluster, url)
    return Target(url, "", "default", found=False)


def _target(cluster: statefile.RunningCluster, url: str) -> Target:
    return Target(url, cluster.redis, cluster.cluster, found=True, stages=cluster.stages)


def _same(endpoint: str, url: str) -> bool:
    host, _, port = url.rpartition("://")[2].rpartition(":")
    return endpoint == url or (host in ("localhost", "127.0.0.1") and endpoint == f"127.0.0.1:{port}")
