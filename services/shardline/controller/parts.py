"""What the pods of replicas and of planning jobs have in common: labels, owner, security, repository, placement. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardline.controller import contract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.spec import Manifest, ModelObject

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels_of(defaults: Mapping[str, Any], model: ModelObject, component: str) -> dict[str, str]:
    """What every object of a Model carries."""
    return {
        contract.LABEL_NAME: contract.NAME,
        contract.LABEL_COMPONENT: component,
        contract.LABEL_INSTANCE: defaults["instance"],
        contract.LABEL_MODEL: model.name,
    }


def metadata(defaults: Mapping[str, Any], model: ModelObject, name: str, labels: Mapping[str, str]) -> Manifest:
    """Of an object that goes with the Model."""
    return {
        "name": name,
        "namespace": model.namespace,
        "labels": {**(defaults.get("labels") or {}), **labels},
        "ownerReferences": owner(model),
    }


def owner(model: ModelObject) -> list[Manifest]:
    """What makes Kubernetes remove an object with its Model; in the foreground the Model stays until its pods have drained."""
    reference = {
        "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
        "kind": contract.KIND,
        "name": model.name,
        "uid": model.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return [reference]


def pod_spec(defaults: Mapping[str, Any]) -> Manifest:
    """The part of a pod's spec that never differs."""
    spec: Manifest = {
        # It talks to Redis, routers and other stages, never to the API server.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Ours is then not process 1, which the kernel spares a SIGTERM without a handler: who still starts ends at once.
        "shareProcessNamespace": True,
        "securityContext": POD_SECURITY,
    }
    if secrets := defaults.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": name} for name in secrets]
    return spec


def environment(
    defaults: Mapping[str, Any], told: Mapping[str, str], fields: Mapping[str, str] | None = None
) -> list[Manifest]:
    """The chart's variables, then ours. fields: variables whose value is a field of the pod."""
    own: list[Manifest] = [{"name": name, "value": value} for name, value in told.items()]
    own += [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in (fields or {}).items()]
    names = {entry["name"] for entry in own}
    return [entry for entry in defaults.get("env") or [] if entry["name"] not in names] + own


def repository_volume(model: ModelObject) -> Manifest:
    """The volume that holds the model repository, read-only."""
    if claim := model.repository.get("persistentVolumeClaim"):
        return {"name": "models", "persistentVolumeClaim": {"claimName": claim["claimName"], "readOnly": True}}
    # Directory: a path that is not there is said, not made.
    return {"name": "models", "hostPath": {"path": model.repository["hostPath"]["path"], "type": "Directory"}}


def repository_mount(model: ModelObject) -> Manifest:
    """Where a container sees the model repository."""
    mount: Manifest = {"name": "models", "mountPath": contract.MODELS_PATH, "readOnly": True}
    if folder := model.repository.get("subPath"):
        mount["subPath"] = folder
    return mount


def resources_of(defaults: Mapping[str, Any], model: ModelObject) -> Manifest:
    """A replica's requests and limits: the Model's own over the chart's; a GPU from the chart where the Model names none."""
    gpu = (defaults.get("gpuResources") or {}) if model.device == "cuda" and not _names_a_gpu(model.resources) else {}
    return merge_resources(model.resources, defaults.get("resources") or {}, gpu)


def merge_resources(own: Mapping[str, Any], default: Mapping[str, Any], more: Mapping[str, Any]) -> Manifest:
    """Requests and limits: own before more before default."""
    merged: Manifest = {}
    for kind in ("requests", "limits"):
        if values := {**(default.get(kind) or {}), **(own.get(kind) or {}), **(more.get(kind) or {})}:
            merged[kind] = values
    for name, limit in merged.get("limits", {}).items():
        # A limit below the chart's default request would be refused by the API server.
        if name in (own.get("limits") or {}) and name not in (own.get("requests") or {}):
            merged.setdefault("requests", {})[name] = limit
    return merged


def _names_a_gpu(resources: Mapping[str, Any]) -> bool:
    return any("gpu" in name for kind in resources.values() for name in kind or {})


def placement_of(defaults: Mapping[str, Any], model: ModelObject, *, gpu: bool) -> Manifest:
    """Where pods may run: as the Model says, else as the chart does. gpu: whether they need one."""
    selector = {**(defaults.get("nodeSelector") or {}), **((defaults.get("gpuNodeSelector") or {}) if gpu else {})}
    tolerations = [*(defaults.get("tolerations") or []), *((defaults.get("gpuTolerations") or []) if gpu else [])]
    runtime = model.placement.get("runtimeClassName") or (defaults.get("gpuRuntimeClassName") if gpu else "")
    found = {
        "nodeSelector": model.placement.get("nodeSelector") or selector,
        "tolerations": model.placement.get("tolerations") or tolerations,
        "runtimeClassName": runtime,
        "priorityClassName": defaults.get("priorityClassName"),
    }
    return {name: value for name, value in found.items() if value}
