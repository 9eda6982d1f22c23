"""What to do about a Model now: `plan(desired, observed) -> actions`. Pure, idempotent, one bounded step.

Level-triggered: it looks at what is, never at what changed, so it may be restarted, called twice or called late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardline.controller import manifests
from shardline.controller.actions import Action, Apply, Delete, Scale, SetStatus, Tell
from shardline.controller.conditions import status_of
from shardline.controller.cut import outdated, take_form
from shardline.controller.rollout import StageState, StageStep, steps

if TYPE_CHECKING:
    from shardline.controller.cut import NoForm
    from shardline.controller.observed import Observed, Pool
    from shardline.controller.spec import ModelObject

Defaults = Mapping[str, Any]
"""What the chart puts into every pod: templates/controller/pods.yaml."""


def plan(defaults: Defaults, model: ModelObject, observed: Observed, now: str) -> list[Action]:
    """The actions that bring what is observed nearer to what is wanted; [] when all is as it should be.

    A Model that is being deleted is only reported: Kubernetes lets its pods go, which drain (docs/adr/0024). While a split model has
    no plan yet, what serves goes on as it is.
    """
    if model.deleting or model.paused:
        formed = take_form(defaults, model, observed)[0]
        return _report(formed, observed, manifests.revision_of(defaults, formed), None, now)
    formed, missing, actions = take_form(defaults, model, observed)
    revision = manifests.revision_of(defaults, formed) if missing is None else ""
    if missing is None:
        actions += [*_services(defaults, formed, observed), *_pools(defaults, formed, observed, revision)]
        settled = all(pool.revision == revision for pool in observed.pools)
        actions += outdated(defaults, model, observed, settled)
    return [*actions, *_report(formed, observed, revision, missing, now)]


def _services(defaults: Defaults, model: ModelObject, observed: Observed) -> list[Action]:
    wanted = [manifests.service(defaults, model, stage) for stage in range(len(model.replicas))]
    names = {manifest["metadata"]["name"] for manifest in wanted}
    changed = [Apply(m) for m in wanted if not holds(m, observed.services.get(m["metadata"]["name"]))]
    # A stage that is not wanted any more keeps its Service while it has pods: its slices are what they are believed by.
    names |= {manifests.service_name(model, pool.stage) for pool in observed.pools}
    return [*changed, *(Delete("Service", name) for name in observed.services if name not in names)]


def _pools(defaults: Defaults, model: ModelObject, observed: Observed, revision: str) -> list[Action]:
    """Every stage's Deployments, those of stages included that only former revisions have: their pods hold room, too."""
    actions: list[Action] = []
    most = max([len(model.replicas), *(pool.stage + 1 for pool in observed.pools)])
    replicas = [*model.replicas, *[0] * (most - len(model.replicas))]
    stages = tuple(_state(observed, revision, stage, wanted) for stage, wanted in enumerate(replicas))
    for stage, step in enumerate(steps(model.mode, stages)):
        if stage < len(model.replicas):
            wanted = manifests.deployment(defaults, model, stage, revision, step.new)
            current = next((p for p in observed.pools if p.name == wanted["metadata"]["name"]), None)
            if current is None or not holds(wanted, current.manifest):
                actions.append(Apply(wanted))
        actions += _former(observed, revision, stage, step)
    return actions


def _state(observed: Observed, revision: str, stage: int, wanted: int) -> StageState:
    former = [pool for pool in observed.pools if pool.stage == stage and pool.revision != revision]
    return StageState(
        wanted=wanted,
        new_ready=observed.serving(stage, revision),
        new_homeless=sum(pod.wants_room for pod in observed.of(stage, revision)),
        new_loading=sum(
            not (pod.gone or pod.unschedulable or (pod.ready and pod.known)) for pod in observed.of(stage, revision)
        ),
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


def _report(model: ModelObject, observed: Observed, revision: str, missing: NoForm | None, now: str) -> list[Action]:
    status = status_of(model, observed, revision, missing, now)
    actions: list[Action] = []
    before = {condition["type"]: condition for condition in model.conditions}
    for condition in status["conditions"]:
        was = before.get(condition["type"], {})
        if (condition["status"], condition["reason"]) != (was.get("status"), was.get("reason")):
            bad = condition["reason"] == "Stalled" or (condition["type"] == "Ready" and condition["status"] == "False")
            starting = condition["reason"] in ("Starting", "Planning", "Draining", "ScaledToZero")
            event = Tell(condition["reason"], condition["message"], warning=bad and not starting)
            if event not in actions:
                actions.append(event)
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
