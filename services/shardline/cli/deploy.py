"""`shardline deploy`: a Model object on the cluster of the current kube context, and how it gets on. Mounted by `app.py`."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shardline.cli.failure import EXIT_USAGE, Failure, one_line
from shardline.cli.kube import condition_of, kube_release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.client import Release

_POLL_S = 0.5
_FORMS = "CLAIM/MODEL, CLAIM/FOLDER/MODEL, or /FOLDER/MODEL for a folder that every node has"


def deploy(
    source: Annotated[
        str,
        typer.Argument(metavar="REPOSITORY/MODEL", help=f"Where the model lies: {_FORMS}.", show_default=False),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the Model object. [default: the model's]")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Of the release. [default: the kube context's]")
    ] = "",
    replicas: Annotated[int | None, typer.Option(metavar="N", min=0, help="Pods, of each stage. [default: 1]")] = None,
    stages: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Split it into N stages, or as few as fit --memory. [default: 1]"),
    ] = None,
    stage_replicas: Annotated[
        str | None, typer.Option(metavar="N,N", help="Pods of each stage. [default: --replicas each]")
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Version to serve. [default: by the model's version policy]")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|cuda|simulated", help="[default: auto]")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Of each pod at most, as 4Gi.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it serves, or cannot.")] = True,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Longest wait.")] = 900.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the Model object and do nothing.")] = False,
) -> None:
    """Serve a model of a repository volume on Kubernetes, or change how it is served."""
    with one_line():
        manifest = model_manifest(
            source,
            name,
            replicas=replicas,
            stages=stages,
            stageReplicas=_numbers(stage_replicas),
            version=version,
            device=device,
            resources=None if memory is None else {"limits": {"memory": memory}},
        )
        if dry_run:
            import yaml

            typer.echo(yaml.safe_dump(manifest, sort_keys=False), nl=False)
            return
        try:
            asyncio.run(_deploy(manifest, namespace, timeout if wait else 0.0))
        except KeyboardInterrupt:
            raise Failure("interrupted; the cluster goes on with it") from None


def model_manifest(source: str, name: str, **spec: Any) -> dict[str, Any]:
    """The Model object of a source; what is None is left out. Raises Failure."""
    repository, model = parse_source(source)
    own = name or re.sub(r"[^a-z0-9-]+", "-", model.lower()).strip("-")
    wanted: dict[str, Any] = {"repository": repository, "model": model} if own != model else {"repository": repository}
    if isinstance(stages := spec.get("stages"), str) and stages != "auto":
        if not stages.isdecimal():
            raise Failure(f"--stages is auto or a number, not {stages!r}", EXIT_USAGE)
        spec["stages"] = int(stages)
    wanted |= {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": "shardline.dev/v1alpha1", "kind": "Model", "metadata": {"name": own}, "spec": wanted}


def parse_source(source: str) -> tuple[dict[str, Any], str]:
    """(the repository as a Model's spec names it, the model's folder). Raises Failure.

    >>> parse_source("models/vision/resnet50")
    ({'persistentVolumeClaim': {'claimName': 'models'}, 'subPath': 'vision'}, 'resnet50')
    >>> parse_source("/srv/models/digits")
    ({'hostPath': {'path': '/srv/models'}}, 'digits')
    """
    folder, _, model = source.rstrip("/").rpartition("/")
    if not folder or not model:
        raise Failure(f"{source!r} names no model in a repository: write {_FORMS}", EXIT_USAGE)
    if folder.startswith("/"):
        return {"hostPath": {"path": folder}}, model
    claim, _, inside = folder.partition("/")
    repository: dict[str, Any] = {"persistentVolumeClaim": {"claimName": claim}}
    return (repository | {"subPath": inside} if inside else repository), model


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise Failure(f"--stage-replicas is one number for each stage, as 1,2, not {text!r}", EXIT_USAGE)
    return [int(part) for part in parts]


async def _deploy(manifest: dict[str, Any], namespace: str, wait_s: float) -> None:
    name = manifest["metadata"]["name"]
    async with kube_release(namespace) as release:
        applied = await release.deploy(manifest)
        sys.stdout.write(f"Model {name} is with {release.where}.\n")
        if wait_s:
            await _watch(release, name, applied["metadata"]["generation"], wait_s)
            sys.stdout.write(f"Next: shardline infer {applied['spec'].get('model', name)}\n")


async def _watch(release: Release, name: str, generation: int, wait_s: float) -> None:
    """Tell what the controller says until the model serves as asked. Raises Failure where it cannot."""
    told = ""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                found = await release.model(name)
                progress = condition_of(found, "Progressing")
                if found.get("status", {}).get("observedGeneration") == generation:
                    told = _tell(progress, told)
                    if progress.get("reason") in ("Complete", "Paused"):
                        return
                    if progress.get("reason") == "Stalled":
                        raise Failure(f"{name}: {progress['message']}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise Failure(f"{name} is not there after {wait_s:.0f} s: {told or 'is the controller running?'}") from None


def _tell(progress: Mapping[str, Any], before: str) -> str:
    text = f"{progress.get('reason')}: {progress.get('message')}"
    if text != before:
        sys.stdout.write(f"  {text}\n")
        sys.stdout.flush()
    return text
