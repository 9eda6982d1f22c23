"""What to do about a Model now: `plan(desired, observed) -> actions`. Pure, idempotent, one bounded step.

Level-triggered: it looks at what is, never at what changed, so it may be restarted, called twice or called late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardline.controller import contract, manifests
from shardline.controller.actions import Action, Apply, Delete, Scale, SetFinalizers, SetStatus, Tell
from shardline.controller.conditions import status_of
from shardline.controller.rollout import StageState, StageStep, steps

if TYPE_CHECKING:
    from shardline.controller.observed import Observed, Pool
    from shardline.controller.spec import ModelObject

Defaults = Mapping[str, Any]
"""What the chart puts into every pod: templates/controller/pods.yaml."""


def plan(defaults: Defaults, model: ModelObject, observed: Observed, now: str) -> list[Action]:
    """The actions that bring what is observed nearer to what is wanted; [] when all is as it should be."""
    revision = manifests.revision_of(defaults, model)
    if model.deleting:
        actions = _let_go(model, observed)
    elif model.paused:
        actions = _hold(model)
    else:
        actions = [*_hold(model), *_services(defaults, model, observed), *_pools(defaults, model, observed, revision)]
    return [*actions, *_report(model, observed, revision, now)]


def _hold(model: ModelObject) -> list[Action]:
    """Our finalizer: the object stays until its pods have drained."""
    if contract.FINALIZER in model.finalizers:
        return []
    return [SetFinalizers((*model.finalizers, contract.FINALIZER))]


def _let_go(model: ModelObject, observed: Observed) -> list[Action]:
    """Drain, then remove, then let the object go."""
    actions: list[Action] = [Scale(pool.name, 0) for pool in observed.pools if pool.wanted]
    if observed.pods or contract.FINALIZER not in model.finalizers:
        return actions
    actions += [Delete("Deployment", pool.name) for pool in observed.pools]
    actions += [Delete("Service", name) for name in observed.services]
    return [*actions, SetFinalizers(tuple(name for name in model.finalizers if name != contract.FINALIZER))]


def _services(defaults: Defaults, model: ModelObject, observed: Observed) -> list[Action]:
    wanted = [manifests.service(defaults, model, stage) for stage in range(len(model.replicas))]
    names = {manifest["metadata"]["name"] for manifest in wanted}
    changed = [Apply(m) for m in wanted if not holds(m, observed.services.get(m["metadata"]["name"]))]
    return [*changed, *(Delete("Service", name) for name in observed.services if name not in names)]


def _pools(defaults: Defaults, model: ModelObject, observed: Observed, revision: str) -> list[Action]:
    actions: list[Action] = []
    stages = tuple(_state(observed, revision, stage, wanted) for stage, wanted in enumerate(model.replicas))
    for stage, step in enumerate(steps(model.mode, stages)):
        wanted = manifests.deployment(defaults, model, stage, revision, step.new)
        current = next((p for p in observed.pools if p.name == wanted["metadata"]["name"]), None)
        if current is None or not holds(wanted, current.manifest):
            actions.append(Apply(wanted))
        actions += _former(observed, revision, stage, step)
    beyond = [pool for pool in observed.pools if pool.stage >= len(model.replicas)]
    if all(stage.new_ready >= stage.wanted for stage in stages):
        actions += [action for pool in beyond for action in _retire(observed, pool, 0)]
    return actions


def _state(observed: Observed, revision: str, stage: int, wanted: int) -> StageState:
    former = [pool for pool in observed.pools if pool.stage == stage and pool.revision != revision]
    return StageState(
        wanted=wanted,
        new_ready=observed.ready(stage, revision),
        new_homeless=sum(bool(pod.unschedulable) and not pod.gone for pod in observed.of(stage, revision)),
        old=sum(pool.wanted for pool in former),
        old_pods=sum(pod.stage == stage and pod.revision != revision for pod in observed.pods),
    )


def _former(observed: Observed, revision: str, stage: int, step: StageStep) -> list[Action]:
    """Share what is left for former revisions among them: those that serve keep theirs, then the newest."""
    former = [pool for pool in observed.pools if pool.stage == stage and pool.revision != revision]
    former.sort(key=lambda pool: (observed.ready(stage, pool.revision) > 0, pool.made_at), reverse=True)
    actions: list[Action] = []
    left = step.old
    for pool in former:
        keep = min(pool.wanted, left)
        left -= keep
        actions += _retire(observed, pool, keep)
    return actions


def _retire(observed: Observed, pool: Pool, keep: int) -> list[Action]:
    if pool.wanted > keep:
        return [Scale(pool.name, keep)]
    if keep == 0 and not observed.of(pool.stage, pool.revision):
        return [Delete("Deployment", pool.name)]
    return []


def _report(model: ModelObject, observed: Observed, revision: str, now: str) -> list[Action]:
    status = status_of(model, observed, revision, now)
    actions: list[Action] = []
    before = {condition["type"]: condition for condition in model.conditions}
    for condition in status["conditions"]:
        was = before.get(condition["type"], {})
        if (condition["status"], condition["reason"]) != (was.get("status"), was.get("reason")):
            bad = condition["reason"] == "Stalled" or (condition["type"] == "Ready" and condition["status"] == "False")
            starting = condition["reason"] in ("Starting", "Draining", "ScaledToZero")
            actions.append(Tell(condition["reason"], condition["message"], warning=bad and not starting))
    if status != model.status:
        actions.append(SetStatus(status))
    return actions


def holds(wanted: Any, found: Any) -> bool:
    """Whether `found` says all that `wanted` says; what the API server or others added does not matter."""
    if isinstance(wanted, dict):
        return isinstance(found, Mapping) and all(holds(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        pairs = zip(wanted, found or (), strict=False)
        return len(found or ()) >= len(wanted) and all(holds(a, b) for a, b in pairs)
    return wanted == found or (wanted in ("", False) and found is None)
