"""Objects as the API server gives them, for the tests of pure functions."""

from __future__ import annotations

from typing import Any

from shardline.controller import contract
from shardline.controller.observed import Observed, Pod, Trouble, read_pool
from shardline.controller.spec import Manifest, ModelObject, read_model

DEFAULTS: Manifest = {
    "instance": "r",
    "image": "shardline:1",
    "cudaImage": "shardline:1-cuda",
    "imagePullPolicy": "IfNotPresent",
    "env": [{"name": "SHARDLINE_CLUSTER", "value": "ns.r"}],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
    "gpuResources": {"limits": {"nvidia.com/gpu": 1}},
}
NOW = "2030-01-01T00:00:00Z"


def model(deleting: bool = False, held: bool = True, status: Manifest | None = None, **spec: Any) -> ModelObject:
    meta: Manifest = {"name": "digits", "namespace": "ns", "uid": "u", "generation": 3}
    meta["finalizers"] = [contract.FINALIZER] if held else []
    if deleting:
        meta["deletionTimestamp"] = NOW
    whole = {"repository": {"persistentVolumeClaim": {"claimName": "models"}}, **spec}
    return read_model({"metadata": meta, "spec": whole, "status": status or {}})


def pod(
    revision: str, ready: bool = True, gone: bool = False, homeless: str = "", trouble: Trouble | None = None
) -> Pod:
    return Pod(f"pod-{revision}", 0, revision, ready, gone, homeless, trouble)


def observed(manifests: list[Manifest], pods: list[Pod], services: list[Manifest] | None = None) -> Observed:
    named = {item["metadata"]["name"]: item for item in services or []}
    return Observed(tuple(read_pool(item) for item in manifests), tuple(pods), named)
