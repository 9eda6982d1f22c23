"""The objects that a Model becomes: one Deployment for each stage and revision, one headless Service for each stage. Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from shardline.controller import contract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.spec import Manifest, ModelObject


def pool_labels(defaults: Mapping[str, Any], model: ModelObject, stage: int) -> dict[str, str]:
    """What selects the pods of one stage, of whatever revision."""
    return {
        **contract.NAME_LABELS,
        contract.LABEL_INSTANCE: defaults["instance"],
        contract.LABEL_MODEL: model.name,
        contract.LABEL_STAGE: str(stage),
    }


def revision_of(defaults: Mapping[str, Any], model: ModelObject) -> str:
    """Eight hex digits: of all that makes a pod. Another revision means other pods."""
    templates = [pod_template(defaults, model, stage, "") for stage in range(len(model.replicas))]
    return hashlib.sha256(json.dumps(templates, sort_keys=True).encode()).hexdigest()[:8]


def deployment_name(model: ModelObject, stage: int, revision: str) -> str:
    """The name of a stage's Deployment."""
    return f"{model.name}-{revision}-s{stage}"


def service_name(model: ModelObject, stage: int) -> str:
    """The name of a stage's headless Service."""
    return f"{model.name}-s{stage}"


def owner(model: ModelObject) -> list[Manifest]:
    """What makes Kubernetes remove an object with its Model, should the controller not."""
    reference = {
        "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
        "kind": contract.KIND,
        "name": model.name,
        "uid": model.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return [reference]


def deployment(defaults: Mapping[str, Any], model: ModelObject, stage: int, revision: str, replicas: int) -> Manifest:
    """A stage's Deployment. Its template never changes: another revision is another Deployment."""
    selector = {**pool_labels(defaults, model, stage), contract.LABEL_REVISION: revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(model, stage, revision),
            "namespace": model.namespace,
            "labels": {**(defaults.get("labels") or {}), **selector},
            "ownerReferences": owner(model),
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            # A pod that loads a large model for ten minutes is not a failure.
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": selector},
            "template": pod_template(defaults, model, stage, revision),
        },
    }


def service(defaults: Mapping[str, Any], model: ModelObject, stage: int) -> Manifest:
    """A stage's headless Service: its EndpointSlices say which replicas Kubernetes believes in."""
    labels = pool_labels(defaults, model, stage)
    ports = {"control": contract.PORT_CONTROL, "link": contract.PORT_LINK, "metrics": contract.PORT_METRICS}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(model, stage),
            "namespace": model.namespace,
            "labels": {**(defaults.get("labels") or {}), **labels},
            "ownerReferences": owner(model),
        },
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports.items()
            ],
        },
    }


def pod_template(defaults: Mapping[str, Any], model: ModelObject, stage: int, revision: str) -> Manifest:
    """The pods of a stage."""
    labels = {**(defaults.get("labels") or {}), **pool_labels(defaults, model, stage)}
    metadata: Manifest = {"labels": {**labels, contract.LABEL_REVISION: revision}}
    metadata["annotations"] = {"kubectl.kubernetes.io/default-container": contract.CONTAINER}
    metadata["annotations"] |= defaults.get("annotations") or {}
    spec: Manifest = {
        # It talks to Redis, routers and other stages, never to the API server.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": model.drain_s + contract.GRACE_BEYOND_DRAIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": _spread(defaults, model, stage, revision),
        "containers": [_container(defaults, model)],
        "volumes": [*copy.deepcopy(list(defaults.get("volumes") or [])), _repository_volume(model)],
    }
    if secrets := defaults.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": name} for name in secrets]
    spec |= _placement(defaults, model)
    return {"metadata": metadata, "spec": spec}


def _container(defaults: Mapping[str, Any], model: ModelObject) -> Manifest:
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}}
    mounts = [*(defaults.get("volumeMounts") or [])]
    mount: Manifest = {"name": "models", "mountPath": contract.MODELS_PATH, "readOnly": True}
    if folder := model.repository.get("subPath"):
        mount["subPath"] = folder
    return {
        "name": contract.CONTAINER,
        "image": defaults["cudaImage"] if model.device == "cuda" else defaults["image"],
        "imagePullPolicy": defaults["imagePullPolicy"],
        "command": list(contract.COMMAND),
        "env": _environment(defaults, model),
        "ports": [
            {"name": "control", "containerPort": contract.PORT_CONTROL, "protocol": "TCP"},
            {"name": "link", "containerPort": contract.PORT_LINK, "protocol": "TCP"},
            {"name": "metrics", "containerPort": contract.PORT_METRICS, "protocol": "TCP"},
        ],
        # Loading and warming take what they take; a broken model ends the process itself.
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 3600, "timeoutSeconds": 2},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 2},
        "livenessProbe": {
            "tcpSocket": {"port": contract.PORT_CONTROL},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        # The last lines of a replica that could not load its model are what the Model's status says.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": _resources(defaults, model),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, mount],
    }


def _environment(defaults: Mapping[str, Any], model: ModelObject) -> list[Manifest]:
    told = {
        contract.ENV_REPOSITORY: contract.MODELS_PATH,
        contract.ENV_MODELS: model.model,
        contract.ENV_DEVICE: model.device,
        contract.ENV_CONTROL: f"0.0.0.0:{contract.PORT_CONTROL}",
        contract.ENV_LINK: f"tcp://0.0.0.0:{contract.PORT_LINK}",
        contract.ENV_METRICS_PORT: str(contract.PORT_METRICS),
        contract.ENV_DRAIN: str(model.drain_s),
    }
    fields = {contract.ENV_POD: "metadata.name", contract.ENV_ADVERTISE: "status.podIP"}
    own: list[Manifest] = [{"name": name, "value": value} for name, value in told.items()]
    own += [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    names = {entry["name"] for entry in own}
    return [entry for entry in defaults.get("env") or [] if entry["name"] not in names] + own


def _resources(defaults: Mapping[str, Any], model: ModelObject) -> Manifest:
    """The Model's own requests and limits over the chart's; a GPU from the chart where the Model names none."""
    merged: Manifest = {}
    for kind in ("requests", "limits"):
        values = {**((defaults.get("resources") or {}).get(kind) or {}), **(model.resources.get(kind) or {})}
        if model.device == "cuda" and not _names_a_gpu(model.resources):
            values |= (defaults.get("gpuResources") or {}).get(kind) or {}
        if values:
            merged[kind] = values
    for name, limit in merged.get("limits", {}).items():
        # A limit below the chart's default request would be refused by the API server.
        if name in model.resources.get("limits", {}) and name not in model.resources.get("requests", {}):
            merged.setdefault("requests", {})[name] = limit
    return merged


def _names_a_gpu(resources: Mapping[str, Any]) -> bool:
    return any("gpu" in name for kind in resources.values() for name in kind or {})


def _repository_volume(model: ModelObject) -> Manifest:
    if claim := model.repository.get("persistentVolumeClaim"):
        return {"name": "models", "persistentVolumeClaim": {"claimName": claim["claimName"], "readOnly": True}}
    # Directory: a path that is not there is said, not made.
    return {"name": "models", "hostPath": {"path": model.repository["hostPath"]["path"], "type": "Directory"}}


def _spread(defaults: Mapping[str, Any], model: ModelObject, stage: int, revision: str) -> list[Manifest]:
    labels = {**pool_labels(defaults, model, stage), contract.LABEL_REVISION: revision}
    keys = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    selector = {"matchLabels": labels}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in keys
    ]


def _placement(defaults: Mapping[str, Any], model: ModelObject) -> Manifest:
    gpu = model.device == "cuda"
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
