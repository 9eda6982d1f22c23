"""A Model's status in plain words. Pure: what is wanted and observed in, the status out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.controller import contract

if TYPE_CHECKING:
    from shardline.controller.cut import NoForm
    from shardline.controller.observed import Observed, Trouble
    from shardline.controller.spec import Manifest, ModelObject

LASTING = 3
"""From this severity on, trouble does not pass by waiting."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it has a time."""

    type: str
    status: bool
    reason: str
    message: str


def status_of(model: ModelObject, observed: Observed, revision: str, missing: NoForm | None, now: str) -> Manifest:
    """The whole status. missing: why there is no wanted form yet. now: RFC 3339, the time of conditions that change."""
    conditions = conditions_of(model, observed, revision) if missing is None else waiting(observed, missing)
    status: Manifest = {
        "observedGeneration": model.generation,
        "replicas": sum(pod.stage == 0 and not pod.gone for pod in observed.pods),
        "selector": f"{contract.LABEL_MODEL}={model.name},{contract.LABEL_STAGE}=0",
        **(_of_stages(model, observed, revision) if missing is None else _as_before(model)),
        "conditions": [_timed(condition, model, now) for condition in conditions],
    }
    if model.cut is not None:
        status["plan"] = model.cut.text
    if observed.versions:
        status["version"] = ",".join(map(str, observed.versions))
    if observed.traffic is not None:
        p99 = observed.traffic.p99_s
        status["traffic"] = {"rate": f"{observed.traffic.rate:.3g}/s"}
        if p99 is not None:
            status["traffic"]["p99"] = f"{p99 * 1000:.3g}ms"
    return status


def _of_stages(model: ModelObject, observed: Observed, revision: str) -> Manifest:
    stages = range(len(model.replicas))
    ready = [observed.ready(stage, revision) for stage in stages]
    old = [sum(p.stage == stage and p.revision != revision for p in observed.pods) for stage in stages]
    return {
        "revision": revision,
        "summary": " ".join(f"{have}/{want}" for have, want in zip(ready, model.replicas, strict=True)),
        "stages": [
            {"stage": stage, "wanted": model.replicas[stage], "ready": ready[stage], "old": old[stage]}
            for stage in stages
        ],
    }


def _as_before(model: ModelObject) -> Manifest:
    return {name: model.status[name] for name in ("revision", "summary", "stages") if name in model.status}


def waiting(observed: Observed, missing: NoForm) -> tuple[Condition, ...]:
    """While a split model has no plan: what served before goes on."""
    if usable(observed):
        ready = Condition("Ready", True, "Serving", f"answers in its former form; {missing.reason}: {missing.message}")
    else:
        ready = Condition("Ready", False, missing.reason, missing.message)
    if missing.failed:
        return ready, Condition("Progressing", False, "Stalled", f"{missing.reason}: {missing.message}")
    return ready, Condition("Progressing", True, missing.reason, missing.message)


def conditions_of(model: ModelObject, observed: Observed, revision: str) -> tuple[Condition, ...]:
    """Ready: whether the model answers. Progressing: whether a change is on its way to the pods."""
    if model.deleting:
        text = f"{len(observed.pods)} replicas finish what they have accepted"
        return (Condition("Ready", False, "Draining", text), Condition("Progressing", True, "Draining", text))
    return (_ready(model, observed, revision), _progressing(model, observed, revision))


def usable(observed: Observed) -> bool:
    """Whether some revision has a ready replica of every stage of its own."""
    stages: dict[str, set[int]] = {}
    for pool in observed.pools:
        stages.setdefault(pool.revision, set()).add(pool.stage)
    return any(all(observed.ready(stage, revision) for stage in own) for revision, own in stages.items())


def _ready(model: ModelObject, observed: Observed, revision: str) -> Condition:
    have = sum(min(observed.ready(stage, revision), want) for stage, want in enumerate(model.replicas))
    want = sum(model.replicas)
    trouble = worst_trouble(observed, revision)
    if want == 0:
        return Condition("Ready", False, "ScaledToZero", "no replicas are wanted")
    if have == want:
        return Condition("Ready", True, "Serving", f"all {want} replicas are ready")
    if not usable(observed):
        if trouble is not None:
            return Condition("Ready", False, trouble.reason, trouble.message)
        return Condition("Ready", False, "Starting", f"{have} of {want} replicas are ready, not every stage has one")
    if trouble is not None:
        return Condition(
            "Ready", True, "Degraded", f"answers, but {have} of {want} replicas are ready: {trouble.message}"
        )
    return Condition("Ready", True, "Serving", f"answers; {have} of {want} replicas are ready")


def _progressing(model: ModelObject, observed: Observed, revision: str) -> Condition:
    have = sum(min(observed.ready(stage, revision), want) for stage, want in enumerate(model.replicas))
    old = sum(pod.revision != revision for pod in observed.pods)
    trouble = worst_trouble(observed, revision)
    text = f"{have} of {sum(model.replicas)} replicas of revision {revision} are ready, {old} of former ones are left"
    if model.paused:
        return Condition("Progressing", False, "Paused", f"spec.paused is set; {text}")
    if have == sum(model.replicas) and old == 0:
        return Condition("Progressing", False, "Complete", text)
    if trouble is not None and trouble.severity >= LASTING:
        return Condition("Progressing", False, "Stalled", f"{trouble.reason}: {trouble.message}")
    return Condition("Progressing", True, "RollingOut", text if trouble is None else f"{text}; {trouble.message}")


def worst_trouble(observed: Observed, revision: str) -> Trouble | None:
    """The worst that keeps a pod of this revision from serving."""
    found = [p.trouble for p in observed.pods if p.revision == revision and not p.gone and not p.ready and p.trouble]
    return max(found, key=lambda trouble: trouble.severity, default=None)


def _timed(condition: Condition, model: ModelObject, now: str) -> Manifest:
    status = "True" if condition.status else "False"
    before = next((c for c in model.conditions if c["type"] == condition.type), None)
    since = before["lastTransitionTime"] if before and before["status"] == status else now
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message[:4096],
        "lastTransitionTime": since,
        "observedGeneration": model.generation,
    }
