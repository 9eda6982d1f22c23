"""Objects as the API server gives them, for the tests of pure functions."""

from __future__ import annotations

from typing import Any

from shardline.controller.cut import Cut, JobState, PlanJob, plan_key
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
    "planningResources": {"requests": {"memory": "1Gi"}},
    "gpuResources": {"limits": {"nvidia.com/gpu": 1}},
}
NOW = "2030-01-01T00:00:00Z"


def model(deleting: bool = False, status: Manifest | None = None, **spec: Any) -> ModelObject:
    meta: Manifest = {"name": "digits", "namespace": "ns", "uid": "u", "generation": 3}
    if deleting:
        meta["deletionTimestamp"] = NOW
    whole = {"repository": {"persistentVolumeClaim": {"claimName": "models"}}, **spec}
    return read_model({"metadata": meta, "spec": whole, "status": status or {}})


def pod(
    revision: str,
    ready: bool = True,
    gone: bool = False,
    homeless: str = "",
    trouble: Trouble | None = None,
    stage: int = 0,
    known: bool = True,
) -> Pod:
    return Pod(f"pod-{revision}-{stage}", stage, revision, ready, gone, homeless, trouble, known=known)


def observed(manifests: list[Manifest], pods: list[Pod], services: list[Manifest] | None = None) -> Observed:
    named = {item["metadata"]["name"]: item for item in services or []}
    return Observed(tuple(read_pool(item) for item in manifests), tuple(pods), named)


def cut(of: ModelObject, stages: int = 2, digest: str = "d") -> Cut:
    key = plan_key(DEFAULTS, of)
    return Cut(f"digits-plan-{key}", key, digest, 1, stages, (1,) * stages, f"{stages} stages")


def planned(of: ModelObject, state: JobState, message: str = "") -> PlanJob:
    key = plan_key(DEFAULTS, of)
    return PlanJob(f"digits-plan-{key}", key, state, message)
