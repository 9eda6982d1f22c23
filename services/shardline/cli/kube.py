"""The cluster of the current kube context: found and reached by the commands that know no other."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shardline.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from shardline.cli.target import Target
    from shardline.controller.client import Release


@asynccontextmanager
async def kube_release(namespace: str) -> AsyncIterator[Release]:
    """The release of a namespace ("": the context's) while the block runs. Raises Failure."""
    try:
        from shardline.controller.client import ApiError, release
    except ImportError as error:
        raise Failure(f"Kubernetes needs more packages: pip install 'shardline[kubernetes]' ({error.name})") from error
    try:
        async with release(namespace) as found:
            yield found
    except ApiError as error:
        sought = "" if namespace else "no cluster of yours runs on this machine, and "
        raise Failure(f"{sought}Kubernetes says: {error}") from error


@asynccontextmanager
async def reached(target: Target) -> AsyncIterator[str]:
    """The address to call, forwarded from a router's pod where the cluster is Kubernetes'. Raises Failure."""
    if target.kube is None:
        yield target.url
        return
    async with kube_release(target.kube) as found, found.router() as address:
        sys.stderr.write(f"Calling {found.where}.\n")
        yield address


def condition_of(model: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One condition of a Model object, {} where the controller has not looked yet."""
    found: Iterable[Mapping[str, Any]] = (model.get("status") or {}).get("conditions") or []
    return next((condition for condition in found if condition["type"] == kind), {})


def model_row(model: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table of Model objects."""
    status = model.get("status") or {}
    traffic = status.get("traffic") or {}
    ready = condition_of(model, "Ready")
    return (
        model["metadata"]["name"],
        str(ready.get("status", "Unknown")),
        status.get("summary", "-"),
        status.get("version", "-"),
        traffic.get("rate", "-"),
        traffic.get("p99", "-"),
        str(ready.get("message", "")),
    )


def stages_of(models: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many stages each split model should have, by `model:version`."""
    found = {}
    for model in models:
        status, stages = model.get("status") or {}, (model.get("status") or {}).get("stages") or []
        if len(stages) > 1 and status.get("version"):
            name = model["spec"].get("model") or model["metadata"]["name"]
            found[f"{name}:{status['version'].rpartition(',')[2]}"] = len(stages)
    return found
