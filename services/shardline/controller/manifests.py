"""The objects that serve a Model: one Deployment for each stage and revision, one headless Service for each stage. Pure."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from shardline.controller import contract, parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.spec import Manifest, ModelObject


def pool_labels(defaults: Mapping[str, Any], model: ModelObject, stage: int) -> dict[str, str]:
    """What selects the pods of one stage, of whatever revision."""
    return {**parts.labels_of(defaults, model, contract.REPLICA), contract.LABEL_STAGE: str(stage)}


def revision_of(defaults: Mapping[str, Any], model: ModelObject) -> str:
    """Eight hex digits: of all that makes a pod. Another revision means other pods."""
    templates = [pod_template(defaults, model, stage, "") for stage in range(len(model.replicas))]
    digest = model.cut.digest if model.cut else ""
    return hashlib.sha256(json.dumps([templates, digest], sort_keys=True).encode()).hexdigest()[:8]


def deployment_name(model: ModelObject, stage: int, revision: str) -> str:
    """The name of a stage's Deployment."""
    return f"{model.name}-{revision}-s{stage}"


def service_name(model: ModelObject, stage: int) -> str:
    """The name of a stage's headless Service."""
    return f"{model.name}-s{stage}"


def deployment(defaults: Mapping[str, Any], model: ModelObject, stage: int, revision: str, replicas: int) -> Manifest:
    """A stage's Deployment. Its template never changes: another revision is another Deployment."""
    selector = {**pool_labels(defaults, model, stage), contract.LABEL_REVISION: revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": parts.metadata(defaults, model, deployment_name(model, stage, revision), selector),
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
        "metadata": parts.metadata(defaults, model, service_name(model, stage), labels),
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
    annotations = {"kubectl.kubernetes.io/default-container": contract.CONTAINER, **(defaults.get("annotations") or {})}
    spec = parts.pod_spec(defaults)
    spec |= {
        "terminationGracePeriodSeconds": model.drain_s + contract.GRACE_BEYOND_DRAIN_S,
        "topologySpreadConstraints": _spread(defaults, model, stage, revision),
        "containers": [_container(defaults, model, stage)],
        "volumes": _volumes(defaults, model),
        **parts.placement_of(defaults, model, gpu=model.device == "cuda"),
    }
    return {
        "metadata": {"labels": {**labels, contract.LABEL_REVISION: revision}, "annotations": annotations},
        "spec": spec,
    }


def _volumes(defaults: Mapping[str, Any], model: ModelObject) -> list[Manifest]:
    volumes = [*copy.deepcopy(list(defaults.get("volumes") or [])), parts.repository_volume(model)]
    if model.cut:
        volumes.append({"name": "plan", "configMap": {"name": model.cut.name}})
    if cache := _cache(defaults, model):
        volumes.append({"name": "cache", **cache})
    return volumes


def _cache(defaults: Mapping[str, Any], model: ModelObject) -> Manifest | None:
    """Where a pod keeps its copy: the chart's volume on the node; else, for a stage, the pod's own; None where it needs no copy."""
    kept: Manifest | None = (defaults.get("cache") or {}).get("volume") or None
    return kept or ({"emptyDir": {}} if model.cut else None)


def _container(defaults: Mapping[str, Any], model: ModelObject, stage: int) -> Manifest:
    probe = {"grpc": {"port": contract.PORT_CONTROL}}
    fetches = _cache(defaults, model) is not None
    mounts = [*(defaults.get("volumeMounts") or []), parts.repository_mount(model)]
    if fetches:
        mounts.append({"name": "cache", "mountPath": contract.CACHE_PATH})
    if model.cut:
        mounts.append({"name": "plan", "mountPath": contract.PLAN_PATH, "readOnly": True})
    return {
        "name": contract.CONTAINER,
        "image": defaults["cudaImage"] if model.device == "cuda" else defaults["image"],
        "imagePullPolicy": defaults["imagePullPolicy"],
        "command": list(contract.FETCH_COMMAND if fetches else contract.COMMAND),
        "env": _environment(defaults, model, stage, fetches=fetches),
        "ports": [
            {"name": "control", "containerPort": contract.PORT_CONTROL, "protocol": "TCP"},
            {"name": "link", "containerPort": contract.PORT_LINK, "protocol": "TCP"},
            {"name": "metrics", "containerPort": contract.PORT_METRICS, "protocol": "TCP"},
        ],
        # Loading and warming take what they take; a broken model ends the process itself.
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 3600, "timeoutSeconds": 2},
        "readinessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 3, "timeoutSeconds": 2},
        # Slow on purpose: a replica that is only busy must not be killed.
        "livenessProbe": {
            "tcpSocket": {"port": contract.PORT_CONTROL},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        # The last lines of a replica that could not load its model are what the Model's status says.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": parts.resources_of(defaults, model),
        "securityContext": parts.CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }


def _environment(defaults: Mapping[str, Any], model: ModelObject, stage: int, *, fetches: bool) -> list[Manifest]:
    version = model.cut.version if model.cut else model.version
    told = {
        contract.ENV_REPOSITORY: contract.MODELS_PATH,
        contract.ENV_MODELS: model.model,
        contract.ENV_REQUIRE: "true",
        contract.ENV_DEVICE: model.device,
        contract.ENV_CONTROL: f"0.0.0.0:{contract.PORT_CONTROL}",
        contract.ENV_LINK: f"tcp://0.0.0.0:{contract.PORT_LINK}",
        contract.ENV_METRICS_PORT: str(contract.PORT_METRICS),
        contract.ENV_DRAIN: str(model.drain_s),
    }
    if version:
        told[contract.ENV_VERSION] = str(version)
    if fetches:
        told[contract.ENV_CACHE] = contract.CACHE_PATH
        told[contract.ENV_CACHE_BYTES] = str((defaults.get("cache") or {}).get("bytes") or 0)
    if model.cut:
        told[contract.ENV_PLAN] = f"{contract.PLAN_PATH}/{contract.PLAN_FILE}"
        told[contract.ENV_STAGE_INDEX] = str(stage)
    fields = {contract.ENV_POD: "metadata.name", contract.ENV_ADVERTISE: "status.podIP"}
    return parts.environment(defaults, told, fields)


def _spread(defaults: Mapping[str, Any], model: ModelObject, stage: int, revision: str) -> list[Manifest]:
    labels = {**pool_labels(defaults, model, stage), contract.LABEL_REVISION: revision}
    keys = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    selector = {"matchLabels": labels}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in keys
    ]
