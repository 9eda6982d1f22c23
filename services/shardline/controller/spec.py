"""A Model object as a value: read from the API server's JSON, every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.cut import Cut

AUTO = "auto"
Manifest = dict[str, Any]
"""An object of the API server as JSON."""


class RolloutMode(StrEnum):
    """How a change reaches the pods; see the CRD."""

    AUTO = "Auto"
    SURGE = "Surge"
    RECREATE = "Recreate"


@dataclass(frozen=True, slots=True)
class ModelObject:
    """What a user wants.

    model: name that clients call it by, and folder in the repository. version: 0 for the one that the model's own policy asks for.
    stages: into how many it is to be cut, 0 for as few as fit the memory. wanted: replicas of each stage that `per_stage` does not
    name. replicas: of every stage as it is served, one number each. cut: the plan by which it is served, None for the whole
    model. repository, planning: the CRD's parts, as they stand.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    model: str
    version: int
    stages: int
    wanted: int
    per_stage: tuple[int, ...]
    replicas: tuple[int, ...]
    cut: Cut | None
    device: str
    repository: Manifest
    resources: Manifest
    placement: Manifest
    mode: RolloutMode
    paused: bool
    drain_s: int
    planning: Manifest
    deleting: bool
    conditions: tuple[Manifest, ...]
    status: Manifest


def read_model(item: Mapping[str, Any]) -> ModelObject:
    """A ModelObject from JSON that the CRD's schema has accepted. Raises KeyError on anything else."""
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    replicas = int(spec.get("replicas", 1))
    stages = spec.get("stages", 1)
    return ModelObject(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        model=spec.get("model") or meta["name"],
        version=int(spec.get("version", 0)),
        stages=0 if stages == AUTO else int(stages),
        wanted=replicas,
        per_stage=tuple(spec.get("stageReplicas") or ()),
        replicas=(replicas,),
        cut=None,
        device=spec.get("device", "auto"),
        repository=dict(spec["repository"]),
        resources=dict(spec.get("resources") or {}),
        placement=dict(spec.get("placement") or {}),
        mode=RolloutMode((spec.get("rollout") or {}).get("mode", "Auto")),
        paused=bool(spec.get("paused", False)),
        drain_s=int(spec.get("drainSeconds", 60)),
        planning=dict(spec.get("planning") or {}),
        deleting="deletionTimestamp" in meta,
        conditions=tuple(status.get("conditions") or ()),
        status=dict(status),
    )
