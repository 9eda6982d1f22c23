"""The controller's composition root: `run` looks after Models until it is asked to end, `uninstall` lets them all go."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import yaml

from shardline import __version__
from shardline.controller import contract
from shardline.controller.api import MODEL, Api, ApiError, connect
from shardline.controller.cache import Cache
from shardline.controller.election import Election
from shardline.controller.membership import believed_pods, gone, running_pods
from shardline.controller.settings import ControllerSettings
from shardline.controller.traffic import Scraper
from shardline.controller.worker import Worker, Workers
from shardline.coord.codec import REPLICA
from shardline.coord.connection import Connection
from shardline.coord.facts import ModelFacts
from shardline.coord.lease import Lease
from shardline.coord.watch import MembersWatch
from shardline.ops import logs
from shardline.ops.exposition import Endpoint
from shardline.ops.lifecycle import Lifecycle
from shardline.ops.metrics import Metrics
from shardline.ops.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shardline.core.cluster import ReplicaInfo

log = logs.get(__name__)

TRAFFIC_S = 10.0
MEMBERS_S = 0.5


class Controller:
    """One controller process."""

    def __init__(self, settings: ControllerSettings, api: Api, defaults: Mapping[str, Any]) -> None:
        self._settings = settings
        self._api = api
        self._defaults = defaults
        self._connection = Connection(settings.redis_url, settings.cluster)
        me = settings.pod or f"controller-{time.time_ns()}"
        self._election = Election(api, settings.leader_lease, me, settings.leader_lease_s)

    async def run(self, lifecycle: Lifecycle) -> None:
        """Until asked to end. While another pod leads, wait for its Lease."""
        metrics = Endpoint(Metrics("controller", __version__, "none"), lambda: None)
        if self._settings.metrics_port >= 0:
            await metrics.start(self._settings.metrics_host, self._settings.metrics_port)
        try:
            async with asyncio.TaskGroup() as tasks:
                leading = tasks.create_task(self._election.run(self._lead), name="controller.election")
                await lifecycle.draining.wait()
                leading.cancel()
        finally:
            await self._election.release()
            await metrics.stop()
            await self._connection.close()
            await self._api.close()

    async def _lead(self) -> None:
        async with Workers(self._worker) as workers, asyncio.TaskGroup() as tasks:
            cache = self._cache = Cache(self._api, self._defaults["instance"], workers.wake)
            members = MembersWatch(self._connection, REPLICA, on_event=lambda _: self._wake_all(cache, workers))
            cache.members = members.members
            # Models last: their workers look at everything else.
            for reflector in reversed(cache.reflectors):
                tasks.create_task(reflector.run(), name=f"controller.reflect.{reflector.kind.name}")
                await reflector.listed()
            tasks.create_task(members.run(), name="controller.members")
            tasks.create_task(self._confirm_members(cache), name="controller.confirm")
            tasks.create_task(self._count_traffic(cache, workers), name="controller.traffic")

    def _wake_all(self, cache: Cache, workers: Workers) -> None:
        for name in cache.models.objects:
            workers.wake(name)

    def _worker(self, name: str) -> Worker:
        facts = ModelFacts(self._connection)
        return Worker(name, self._api, self._cache, facts, self._defaults, self._settings.resync_s)

    async def _confirm_members(self, cache: Cache) -> None:
        """Take replicas out of Redis whose pods Kubernetes has given up."""
        before: frozenset[str] = frozenset()
        while True:
            now = believed_pods(cache.slices.objects.values()) | running_pods(cache.pods.objects.values())
            for info in gone(before, now, cache.members):
                await self._withdraw(info)
            before = now
            await asyncio.sleep(MEMBERS_S)

    async def _withdraw(self, info: ReplicaInfo) -> None:
        log.warning("member.gone", replica=info.id, pod=info.pod, reason="Kubernetes does not believe in its pod")
        await Lease(self._connection, REPLICA, info).withdraw()

    async def _count_traffic(self, cache: Cache, workers: Workers) -> None:
        scraper = Scraper(contract.PORT_METRICS)
        while True:
            before = cache.traffic
            cache.traffic = await scraper.look(cache.router_addresses(), time.monotonic())
            if cache.traffic != before:
                self._wake_all(cache, workers)
            await asyncio.sleep(TRAFFIC_S)


async def uninstall(api: Api) -> None:
    """Delete every Model of the namespace and wait until all are gone: their pods have drained then. Raises ApiError."""
    while models := (await api.list(MODEL))["items"]:
        for item in models:
            if "deletionTimestamp" not in item["metadata"]:
                log.info("uninstall.deletes", model=item["metadata"]["name"])
                await api.delete(MODEL, item["metadata"]["name"], "Foreground")
        await asyncio.sleep(0.5)


async def _run(settings: ControllerSettings, command: str) -> None:
    api = await connect(settings.namespace)
    if command == "uninstall":
        try:
            await uninstall(api)
        finally:
            await api.close()
        return
    with settings.pods_file.open() as stream:
        defaults = yaml.safe_load(stream)
    lifecycle = Lifecycle()
    with lifecycle.signals():
        await Controller(settings, api, defaults).run(lifecycle)


def main(arguments: list[str]) -> int:
    """`run` (the default) or `uninstall`; returns the exit status."""
    command = arguments[0] if arguments else "run"
    if command not in ("run", "uninstall"):
        print(f"controller: run or uninstall, not {command}", file=sys.stderr)
        return 2
    try:
        settings = load(ControllerSettings)
    except SettingsError as error:
        print(f"controller: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, "controller")
    try:
        asyncio.run(_run(settings, command))
    except (ApiError, OSError, KeyError) as error:
        log.error("controller.failed", reason=str(error))
        return 1
    return 0
