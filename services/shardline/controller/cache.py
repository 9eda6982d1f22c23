"""What the controller knows of the namespace: live copies by kind, cut up by Model."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardline.controller import contract
from shardline.controller.api import CONFIG_MAP, DEPLOYMENT, JOB, MODEL, POD, SERVICE, SLICE, Api
from shardline.controller.observed import (
    Observed,
    Pod,
    Traffic,
    Trouble,
    read_cut,
    read_job,
    read_pod,
    read_pool,
)
from shardline.controller.reflect import Reflector
from shardline.controller.spec import Manifest, ModelObject, read_model
from shardline.core.cluster import ReplicaInfo, ReplicaState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


SETTLE_S = 2.0
"""How long after a replica's announcement routers are taken to have their links to it."""


class Cache:
    """Reflectors of all kinds that matter, and what routers and Redis say. wake is called with a Model's name."""

    def __init__(self, api: Api, instance: str, wake: Any) -> None:
        self._wake = wake
        mine = f"{contract.LABEL_INSTANCE}={instance},{contract.LABEL_NAME}={contract.NAME}"
        replicas = f"{mine},{contract.LABEL_MODEL}"
        self.models = Reflector(api, MODEL, "", self._on_model)
        self._pools = Reflector(api, DEPLOYMENT, replicas, self._on_owned)
        self._services = Reflector(api, SERVICE, replicas, self._on_owned)
        self.pods = Reflector(api, POD, mine, self._on_owned)
        self._jobs = Reflector(api, JOB, replicas, self._on_owned)
        self._plans = Reflector(api, CONFIG_MAP, f"{replicas},{contract.LABEL_PLAN}", self._on_owned)
        self.slices = Reflector(api, SLICE, replicas, self._on_owned)
        self.members: Mapping[str, ReplicaInfo] = {}
        self._announced_at: dict[str, float] = {}
        self.traffic: Mapping[str, Traffic] = {}

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """All of them, to be run."""
        return (self.models, self._pools, self._services, self.pods, self.slices, self._jobs, self._plans)

    def model(self, name: str) -> ModelObject | None:
        """The Model as it is now, None when it is gone."""
        item = self.models.objects.get(name)
        return None if item is None else read_model(item)

    def observed(self, model: ModelObject) -> Observed:
        """All that there is of one Model."""
        every = list(_of(self.pods, model.name))
        self._announced_at = {name: at for name, at in self._announced_at.items() if name in self.pods.objects}
        pods = [item for item in every if _component(item) == contract.REPLICA]
        cuts = [read_cut(item) for item in _of(self._plans, model.name)]
        jobs = [read_job(item, every) for item in _of(self._jobs, model.name)]
        return Observed(
            pools=tuple(read_pool(item) for item in _of(self._pools, model.name)),
            pods=tuple(self._judged(read_pod(item), model) for item in pods),
            services={item["metadata"]["name"]: item for item in _of(self._services, model.name)},
            versions=served_versions(model.model, {item["metadata"]["name"] for item in pods}, self.members),
            traffic=self.traffic.get(model.model),
            cuts={cut.key: cut for cut in cuts},
            jobs={job.key: job for job in jobs},
        )

    def _judged(self, pod: Pod, model: ModelObject) -> Pod:
        """With what Redis says of it. Redis' word reaches routers as fast as us; the links that they make then take a moment."""
        if not announced(pod, model.model, self.members):
            self._announced_at.pop(pod.name, None)
            return doubted(pod, model.model, self.members)
        now = time.monotonic()
        since = self._announced_at.setdefault(pod.name, now)
        if since == now:
            asyncio.get_running_loop().call_later(SETTLE_S, self._wake, model.name)
        return replace(pod, known=now - since >= SETTLE_S)

    def router_addresses(self) -> list[str]:
        """The addresses of routers that run."""
        routers = [item for item in self.pods.objects.values() if _component(item) == contract.ROUTER]
        return sorted(ip for item in routers if (ip := (item.get("status") or {}).get("podIP")))

    def learn(self, item: Manifest) -> None:
        """Take an object that the API server just answered with."""
        for reflector in self.reflectors:
            if reflector.kind.name == item.get("kind"):
                reflector.learn(item)

    def _on_model(self, item: Manifest) -> None:
        self._wake(item["metadata"]["name"])

    def _on_owned(self, item: Manifest) -> None:
        name = (item["metadata"].get("labels") or {}).get(contract.LABEL_MODEL)
        if name in self.models.objects:
            self._wake(name)


def _of(reflector: Reflector, model: str) -> Iterable[Manifest]:
    found = reflector.objects.values()
    return [item for item in found if item["metadata"]["labels"].get(contract.LABEL_MODEL) == model]


def _component(item: Manifest) -> str:
    return str(item["metadata"]["labels"].get(contract.LABEL_COMPONENT, ""))


def announced(pod: Pod, model: str, members: Mapping[str, ReplicaInfo]) -> bool:
    """Whether a replica in the pod says in Redis that it serves the model."""
    return any(
        info.pod == pod.name and info.state is ReplicaState.READY and any(pool.model == model for pool in info.pools)
        for info in members.values()
    )


def doubted(pod: Pod, model: str, members: Mapping[str, ReplicaInfo]) -> Pod:
    """The pod, not ready where its replica says in Redis that it serves nothing of the model: it could not load it.

    A replica that Redis does not name is believed as kubelet sees it: Redis may be away.
    """
    for info in members.values():
        if info.pod == pod.name and info.state is ReplicaState.READY and pod.ready:
            if any(pool.model == model for pool in info.pools):
                return pod
            text = f"model '{model}' was unloaded from the replica by a call: `shardline load {model}` brings it back"
            return replace(pod, ready=False, trouble=Trouble("Unloaded", text, 4))
    return pod


def served_versions(model: str, pods: set[str], members: Mapping[str, ReplicaInfo]) -> tuple[int, ...]:
    """The versions that ready replicas in these pods have, ascending."""
    return tuple(
        sorted(
            {
                pool.version
                for info in members.values()
                if info.pod in pods and info.state is ReplicaState.READY
                for pool in info.pools
                if pool.model == model
            }
        )
    )
