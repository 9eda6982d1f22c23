"""The objects that hold a plan: the job that makes it and the ConfigMap that keeps it. Pure."""

from __future__ import annotations

import base64
import copy
from typing import TYPE_CHECKING, Any

from shardline.controller import contract, parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.controller.bundle import Bundle
    from shardline.controller.spec import Manifest, ModelObject

TRIES = 3
DATA_LIMIT = 1_000_000
"""Of a ConfigMap, a little less than the API server's."""


def plan_name(model: ModelObject, key: str) -> str:
    """The name of a plan's job and of its ConfigMap."""
    return f"{model.name}-plan-{key}"


def labels(defaults: Mapping[str, Any], model: ModelObject, key: str) -> dict[str, str]:
    """What finds a plan's objects."""
    return {**parts.labels_of(defaults, model, contract.PLANNER), contract.LABEL_PLAN: key}


def job(defaults: Mapping[str, Any], model: ModelObject, key: str, memory: int) -> Manifest:
    """The job that plans, extracts and verifies the stages. memory: of one stage at most, in bytes, for stages: auto."""
    own = labels(defaults, model, key)
    spec = parts.pod_spec(defaults)
    spec |= {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "containers": [_container(defaults, model, memory)],
        # The stages are written here once, to be compared with the whole model.
        "volumes": [*copy.deepcopy(list(defaults.get("volumes") or [])), parts.repository_volume(model)],
        **parts.placement_of(defaults, model, gpu=False),
    }
    rules = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": contract.PLANNER_CONTAINER,
                "operator": "In",
                "values": [contract.EXIT_UNPLANNABLE],
            },
        },
        # A node that is drained or lost says nothing about the model.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": parts.metadata(defaults, model, plan_name(model, key), own),
        "spec": {
            "backoffLimit": TRIES - 1,
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": {"labels": {**(defaults.get("labels") or {}), **own}}, "spec": spec},
        },
    }


def _container(defaults: Mapping[str, Any], model: ModelObject, memory: int) -> Manifest:
    told = {
        contract.ENV_REPOSITORY: contract.MODELS_PATH,
        contract.ENV_MODELS: model.model,
        contract.ENV_VERSION: str(model.version),
        contract.ENV_STAGES: str(model.stages),
        contract.ENV_MEMORY: str(memory if not model.stages else 0),
        contract.ENV_ESTIMATE: str(bool(model.planning.get("estimate"))).lower(),
    }
    own = model.planning.get("resources") or {}
    return {
        "name": contract.PLANNER_CONTAINER,
        "image": defaults["image"],
        "imagePullPolicy": defaults["imagePullPolicy"],
        "command": list(contract.PLANNER_COMMAND),
        "env": parts.environment(defaults, told),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": parts.merge_resources(own, defaults.get("planningResources") or {}, {}),
        "securityContext": parts.CONTAINER_SECURITY,
        "volumeMounts": [*(defaults.get("volumeMounts") or []), parts.repository_mount(model)],
    }


def config_map(
    defaults: Mapping[str, Any], model: ModelObject, key: str, version: int, bundle: Bundle, body: bytes
) -> Manifest:
    """The ConfigMap that keeps a plan; it never changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": parts.metadata(defaults, model, plan_name(model, key), labels(defaults, model, key)),
        "immutable": True,
        "data": {
            "version": str(version),
            "stages": str(bundle.stages),
            "replicas": ",".join(map(str, bundle.suggested)),
            "summary": bundle.summary,
        },
        "binaryData": {contract.PLAN_FILE: base64.b64encode(body).decode()},
    }
