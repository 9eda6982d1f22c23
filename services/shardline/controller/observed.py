"""What the cluster holds of one Model: values made from the API server's JSON. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardline.controller import contract
from shardline.controller.bundle import digest_of
from shardline.controller.cut import Cut, JobState, PlanJob

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
    """One pod. gone: it is being removed. unschedulable: what the scheduler said, "" while it has a node.

    known: its replica has announced itself in Redis, and routers have had the time to connect to it.
    """

    name: str
    stage: int
    revision: str
    ready: bool
    gone: bool
    unschedulable: str
    trouble: Trouble | None
    known: bool = False

    @property
    def wants_room(self) -> bool:
        """Whether it has no node, and would get one if others left theirs."""
        return not self.gone and bool(self.unschedulable) and is_about_room(self.unschedulable)


@dataclass(frozen=True, slots=True)
class Traffic:
    """As the routers counted it. rate: requests a second. p99_s: seconds, None without requests."""

    rate: float
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Observed:
    """All that there is of one Model. versions: what ready replicas serve, ascending. cuts, jobs: plans, by their key."""

    pools: tuple[Pool, ...] = ()
    pods: tuple[Pod, ...] = ()
    services: Mapping[str, Manifest] = field(default_factory=dict)
    versions: tuple[int, ...] = ()
    traffic: Traffic | None = None
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    jobs: Mapping[str, PlanJob] = field(default_factory=dict)

    def ready(self, stage: int, revision: str) -> int:
        """Ready pods of a stage and revision that stay."""
        return sum(p.ready and not p.gone for p in self.of(stage, revision))

    def serving(self, stage: int, revision: str) -> int:
        """Those of them that routers know: only for these may others be let go."""
        return sum(p.ready and p.known and not p.gone for p in self.of(stage, revision))

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


def read_cut(item: Mapping[str, Any]) -> Cut:
    """A Cut from a ConfigMap's JSON. Raises KeyError or ValueError where it is none."""
    data = item["data"]
    suggested = tuple(int(number) for number in data["replicas"].split(","))
    return Cut(
        name=item["metadata"]["name"],
        key=item["metadata"]["labels"][contract.LABEL_PLAN],
        digest=digest_of(base64.b64decode(item["binaryData"][contract.PLAN_FILE])),
        version=int(data["version"]),
        stages=len(suggested),
        suggested=suggested,
        text=data["summary"],
    )


def read_job(item: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> PlanJob:
    """A PlanJob from a Job's JSON and its pods', of which the last that ended says why."""
    name = item["metadata"]["name"]
    conditions = {c["type"]: c for c in (item.get("status") or {}).get("conditions") or [] if c["status"] == "True"}
    done, failed = "Complete" in conditions, "Failed" in conditions
    state = JobState.DONE if done else JobState.FAILED if failed else JobState.RUNNING
    own = [pod for pod in pods if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name]
    states = [
        status.get("state") or {} for pod in own for status in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    ends = [state["terminated"] for state in states if "terminated" in state]
    ended = [(end.get("finishedAt") or "", _said_at_the_end(end)) for end in ends if done is (end.get("exitCode") == 0)]
    fallback = (conditions.get("Failed") or {}).get("message", "")
    return PlanJob(name, item["metadata"]["labels"][contract.LABEL_PLAN], state, max(ended, default=("", fallback))[1])


def _said_at_the_end(end: Mapping[str, Any]) -> str:
    if end.get("exitCode") == 0:
        return str(end.get("message") or "")
    if end.get("reason") == "OOMKilled":
        return "planning needs more memory than its limit: raise planning.resources.limits.memory, it runs the whole model once"
    return last_words(end.get("message") or "", int(end["exitCode"]))


def is_about_room(message: str) -> bool:
    """Whether pods that go may help a pod for which the scheduler says this finds no node.

    Not where no node would take it empty, or its volume is missing: that is said by silence about preemption, or so:

    >>> is_about_room("0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 …: 2 No preemption victims found for incoming pod.")
    True
    >>> is_about_room("0/2 nodes are available: 2 Insufficient memory. preemption: 0/2 …: 2 Preemption is not helpful for scheduling.")
    False
    """
    if "No preemption victims found" in message:
        return True
    return "Preemption is not helpful" not in message and ("Insufficient" in message or "Too many pods" in message)


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

    >>> last_words('{"event": "replica.started"}\n{"event": "replica.failed", "error": "no such model"}', 1)
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
