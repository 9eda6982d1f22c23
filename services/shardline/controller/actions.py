"""What the controller does to the cluster, in values: `plan` makes them, `worker` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardline.controller.spec import Manifest


@dataclass(frozen=True, slots=True)
class Apply:
    """Make an object be like this (server-side apply, by force: drift is undone)."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Scale:
    """Make a Deployment ask for so many replicas."""

    name: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object; its dependents follow in the background."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Keep the plan that a job left in Redis in a ConfigMap; where it is lost there, or another one, remove the job."""

    job: str
    key: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Replace the Model's status."""

    status: Manifest


@dataclass(frozen=True, slots=True)
class Tell:
    """An event on the Model. warning: a Warning, else Normal."""

    reason: str
    message: str
    warning: bool = False


Action = Apply | Scale | Delete | StorePlan | SetStatus | Tell
