"""A model that is served in stages: whether its plan is there, and if not, what is to be done for one. Pure.

A planning job (shardline.controller.planner) makes the plan and leaves it in Redis; the controller keeps it in a ConfigMap, which
Redis' loss does not touch and which every stage's pod mounts. Both are named by `plan_key`: of all that the plan depends on.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from shardline.controller.actions import Action, Apply, Delete, StorePlan
from shardline.controller.parts import resources_of
from shardline.controller.planjob import job
from shardline.partition.plan import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.observed import Observed
    from shardline.controller.spec import ModelObject

_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}


@dataclass(frozen=True, slots=True)
class Cut:
    """A plan that is kept. name: of its ConfigMap. digest: of its content. stages: 1 where the whole model fits one pod.

    suggested: replicas of each stage that would even them out. text: the plan in one line.
    """

    name: str
    key: str
    digest: str
    version: int
    stages: int
    suggested: tuple[int, ...]
    text: str


class JobState(StrEnum):
    """How far a planning job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PlanJob:
    """A planning job. message: what its pod ended with; of one that is done the JSON of a `Result`."""

    name: str
    key: str
    state: JobState
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a planning job says at its end. revision: of the plan in Redis."""

    version: int
    digest: str

    @classmethod
    def parse(cls, text: str) -> Result | None:
        """None where it is no result."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class NoForm:
    """Why a model cannot take its wanted form now. failed: waiting does not help."""

    reason: str
    message: str
    failed: bool


def memory_bytes(defaults: Mapping[str, Any], model: ModelObject) -> int:
    """The memory that one replica may take, 0 where nothing bounds it."""
    limit = (resources_of(defaults, model).get("limits") or {}).get("memory")
    return 0 if limit is None else int(quantity(limit))


def quantity(value: str | float) -> float:
    """A quantity of Kubernetes as a number; the CRD's pattern has accepted it.

    >>> quantity("1.5Gi"), quantity("200m"), quantity(3)
    (1610612736.0, 0.2, 3.0)
    """
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(value))
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def plan_key(defaults: Mapping[str, Any], model: ModelObject) -> str:
    """Eight hex digits: of all that a plan depends on."""
    asked = {
        "repository": model.repository,
        "model": model.model,
        "version": model.version,
        "stages": model.stages,
        "memory": 0 if model.stages else memory_bytes(defaults, model),
        "estimate": bool(model.planning.get("estimate")),
        "schema": SCHEMA_VERSION,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def take_form(
    defaults: Mapping[str, Any], model: ModelObject, observed: Observed
) -> tuple[ModelObject, NoForm | None, list[Action]]:
    """The model as it is to be served now, or why not yet; and what is to be done for its plan."""
    if model.stages == 1:
        return model, None, []
    key = plan_key(defaults, model)
    cut = observed.cuts.get(key)
    if cut is None:
        missing, actions = _seek(defaults, model, observed.jobs.get(key), key)
        return model, missing, actions
    actions = [Delete("Job", job.name) for job in observed.jobs.values()]
    if model.per_stage and len(model.per_stage) != cut.stages:
        text = f"stageReplicas has {len(model.per_stage)} numbers, the plan has {cut.stages} stages: give one for each"
        return model, NoForm("StageReplicas", text, failed=True), actions
    if cut.stages == 1:
        return replace(model, version=cut.version), None, actions
    replicas = model.per_stage if model.per_stage and model.wanted else (model.wanted,) * cut.stages
    return replace(model, replicas=replicas, cut=cut), None, actions


def _seek(
    defaults: Mapping[str, Any], model: ModelObject, found: PlanJob | None, key: str
) -> tuple[NoForm, list[Action]]:
    memory = memory_bytes(defaults, model)
    if not model.stages and not memory:
        text = "stages is auto: say in resources.limits.memory how much one pod may take"
        return NoForm("PlanFailed", text, failed=True), []
    planning = NoForm(
        "Planning", f"a job plans and verifies its stages: `kubectl logs -f job/{model.name}-plan-{key}`", False
    )
    if found is None:
        return planning, [Apply(job(defaults, model, key, memory))]
    if found.state is JobState.FAILED:
        retry = f"; `kubectl delete job {found.name}` tries again"
        return NoForm("PlanFailed", f"its stages cannot be planned: {found.message}{retry}", failed=True), []
    if found.state is JobState.DONE:
        result = Result.parse(found.message)
        if result is None:  # it said nothing that we understand: once more
            return planning, [Delete("Job", found.name)]
        return planning, [StorePlan(found.name, key, result.version, result.digest)]
    return planning, []


def outdated(defaults: Mapping[str, Any], model: ModelObject, observed: Observed, settled: bool) -> list[Action]:
    """Remove jobs for other plans than the wanted one now, and plans that no pod uses any more once all is settled."""
    key = plan_key(defaults, model) if model.stages != 1 else ""
    actions: list[Action] = [Delete("Job", job.name) for job in observed.jobs.values() if job.key != key]
    if settled:
        actions += [Delete("ConfigMap", cut.name) for cut in observed.cuts.values() if cut.key != key]
    return actions
