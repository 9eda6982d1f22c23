"""Which cluster a command means."""

from __future__ import annotations

from dataclasses import dataclass

from shardline.local import statefile

DEFAULT_URL = "127.0.0.1:8001"


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster to talk to. redis: "" where it is not known. found: whether it is one that runs on this machine."""

    url: str
    redis: str
    cluster: str
    found: bool


def find_target(url: str | None) -> Target:
    """The cluster at `url`; without one the newest that this user runs here, else the default address."""
    running = statefile.running()
    if url is None:
        if not running:
            return Target(DEFAULT_URL, "", "default", found=False)
        return Target(running[0].endpoint, running[0].redis, running[0].cluster, found=True)
    for cluster in running:
        if _same(cluster.endpoint, url):
            return Target(url, cluster.redis, cluster.cluster, found=True)
    return Target(url, "", "default", found=False)


def _same(endpoint: str, url: str) -> bool:
    host, _, port = url.rpartition("://")[2].rpartition(":")
    return endpoint == url or (host in ("localhost", "127.0.0.1") and endpoint == f"127.0.0.1:{port}")
