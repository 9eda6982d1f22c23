"""A Model object as a value: read from the API server's JSON, every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    model: name that clients call it by, and folder in the repository. replicas: of every stage, one number each (one stage:
    the whole model). repository: the CRD's part, as it stands.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    model: str
    replicas: tuple[int, ...]
    device: str
    repository: Manifest
    resources: Manifest
    placement: Manifest
    mode: RolloutMode
    paused: bool
    drain_s: int
    deleting: bool
    finalizers: tuple[str, ...]
    conditions: tuple[Manifest, ...]
    status: Manifest


def read_model(item: Mapping[str, Any]) -> ModelObject:
    """A ModelObject from JSON that the CRD's schema has accepted. Raises KeyError on anything else."""
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    replicas = int(spec.get("replicas", 1))
    return ModelObject(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        model=spec.get("model") or meta["name"],
        replicas=(replicas,),
        device=spec.get("device", "auto"),
        repository=dict(spec["repository"]),
        resources=dict(spec.get("resources") or {}),
        placement=dict(spec.get("placement") or {}),
        mode=RolloutMode((spec.get("rollout") or {}).get("mode", "Auto")),
        paused=bool(spec.get("paused", False)),
        drain_s=int(spec.get("drainSeconds", 60)),
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers") or ()),
        conditions=tuple(status.get("conditions") or ()),
        status=dict(status),
    )
