"""A pod that Kubernetes says is gone is gone: its replicas leave Redis now, not when their leases end. The decision is pure.

Routers learn it from Redis like every other leave. So the API server is the controller's business alone, and a router needs no
account. Should the controller be away, leases end by themselves. See docs/adr/0023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from shardline.core.cluster import ReplicaInfo


def believed_pods(slices: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The pods that some EndpointSlice shows as serving; a pod that drains still does."""
    found = set()
    for item in slices:
        for endpoint in item.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            serving = conditions.get("serving", conditions.get("ready", True))
            target = endpoint.get("targetRef") or {}
            if serving and target.get("kind") == "Pod":
                found.add(target["name"])
    return frozenset(found)


def running_pods(pods: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The pods that are ready whatever the slices say, and those of which kubelet has last said so.

    A Service that was deleted takes its slices along, not its pods. When nothing is heard of a node (the API server was away for a while,
    or the node's way to it is cut) its pods are called not ready, though their containers may serve on: their leases know better.
    """
    return frozenset(item["metadata"]["name"] for item in pods if _runs(item))


def _runs(pod: Mapping[str, Any]) -> bool:
    true = {c["type"] for c in (pod.get("status") or {}).get("conditions") or [] if c["status"] == "True"}
    return "Ready" in true or ("ContainersReady" in true and "deletionTimestamp" not in pod["metadata"])


def gone(before: AbstractSet[str], now: AbstractSet[str], members: Mapping[str, ReplicaInfo]) -> list[ReplicaInfo]:
    """Members in pods that were believed in and no longer are. A replica that lives after all announces itself again."""
    return [info for info in members.values() if info.pod in before and info.pod not in now]
