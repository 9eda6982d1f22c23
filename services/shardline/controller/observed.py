"""What the cluster holds of one Model: values made from the API server's JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardline.controller import contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardline.controller.spec import Manifest


@dataclass(frozen=True, slots=True)
class Pool:
    """One Deployment: the pods of a stage and revision. wanted: its spec's replicas. made_at: RFC 3339."""

    name: str
    stage: int
    revision: str
    wanted: int
    made_at: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not serve. severity: the worst is told; from 3 on it will not pass by waiting."""

    reason: str
    message: str
    severity: int


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. gone: it is being removed. unschedulable: what the scheduler said, "" while it has a node."""

    name: str
    stage: int
    revision: str
    ready: bool
    gone: bool
    unschedulable: str
    trouble: Trouble | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """As the routers counted it. rate: requests a second. p99_s: seconds, None without requests."""

    rate: float
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Observed:
    """All that there is of one Model. versions: what ready replicas serve, ascending."""

    pools: tuple[Pool, ...] = ()
    pods: tuple[Pod, ...] = ()
    services: Mapping[str, Manifest] = field(default_factory=dict)
    versions: tuple[int, ...] = ()
    traffic: Traffic | None = None

    def ready(self, stage: int, revision: str) -> int:
        """Ready pods of a stage and revision that stay."""
        return sum(p.ready and not p.gone for p in self.of(stage, revision))

    def of(self, stage: int, revision: str) -> list[Pod]:
        """Pods of a stage and revision."""
        return [pod for pod in self.pods if pod.stage == stage and pod.revision == revision]


def read_pool(item: Mapping[str, Any]) -> Pool:
    """A Pool from a Deployment's JSON."""
    labels = item["metadata"]["labels"]
    return Pool(
        name=item["metadata"]["name"],
        stage=int(labels[contract.LABEL_STAGE]),
        revision=labels[contract.LABEL_REVISION],
        wanted=int(item["spec"].get("replicas", 1)),
        made_at=item["metadata"].get("creationTimestamp", ""),
        manifest=dict(item),
    )


def read_pod(item: Mapping[str, Any]) -> Pod:
    """A Pod from a pod's JSON."""
    meta, status = item["metadata"], item.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    nowhere = scheduled.get("message", "no node takes it") if scheduled.get("reason") == "Unschedulable" else ""
    return Pod(
        name=meta["name"],
        stage=int(meta["labels"][contract.LABEL_STAGE]),
        revision=meta["labels"][contract.LABEL_REVISION],
        ready=conditions.get("Ready", {}).get("status") == "True",
        gone="deletionTimestamp" in meta or status.get("phase") in ("Succeeded", "Failed"),
        unschedulable=nowhere,
        trouble=trouble_of(status.get("containerStatuses") or [], nowhere),
    )


def trouble_of(containers: Iterable[Mapping[str, Any]], unschedulable: str) -> Trouble | None:
    """The reason in one word and a sentence, from what kubelet and the scheduler say. None: nothing is wrong."""
    if unschedulable:
        return Trouble("NoRoom", f"no node has room for a replica: {unschedulable}", 2)
    for status in containers:
        ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            text = waiting.get("message") or waiting["reason"]
            return Trouble("ImageUnavailable", f"the node cannot get the image {status.get('image', '')}: {text}", 3)
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return Trouble("PodUnstartable", f"the container cannot start: {waiting.get('message', '')}", 3)
        if ended.get("reason") == "OOMKilled" and not status.get("ready"):
            text = "a replica needs more memory than its limit: raise resources.limits.memory, or split the model"
            return Trouble("OutOfMemory", text, 4)
        if ended.get("exitCode") and not status.get("ready"):
            return Trouble("ModelBroken", last_words(ended.get("message") or "", int(ended["exitCode"])), 4)
    return None


def last_words(log: str, exit_code: int) -> str:
    r"""What a process said before it ended, without its log's dress: the last line that tells an error.

    >>> last_words('{"event": "replica.started"}\\n{"event": "replica.failed", "error": "no such model"}', 1)
    'no such model'
    """
    lines = [line for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        fields = _json_fields(line)
        if fields is None:
            return line.strip()[:1000]
        if text := fields.get("error") or fields.get("reason") or fields.get("message"):
            return str(text)[:1000]
    if lines and (fields := _json_fields(lines[-1])):
        return str(fields.get("event", lines[-1]))[:1000]
    return f"the replica ended with status {exit_code} and said nothing"


def _json_fields(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
