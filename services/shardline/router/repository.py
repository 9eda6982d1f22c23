"""Loads, unloads, index and statistics over all replicas, for a client that sees one server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from shardline.coord.codec import Action
from shardline.coord.desired import DesiredState
from shardline.coord.errors import RedisAway, RedisRefused
from shardline.coord.statistics import Statistics
from shardline.core.errors import NotFound, ServingError, Unavailable
from shardline.ops import logs
from shardline.pb.inference import grpc_service_pb2
from shardline.wire.statistics import add_up, readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from shardline.coord.connection import Connection
    from shardline.pb.shardline.v1 import control_pb2 as pb
    from shardline.router.cluster import Cluster
    from shardline.wire.control import Control

log = logs.get(__name__)

Answer = TypeVar("Answer")

_STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")
Index = grpc_service_pb2.RepositoryIndexResponse.ModelIndex


class RepositoryControl:
    """What the repository and statistics methods do."""

    def __init__(self, cluster: Cluster, connection: Connection) -> None:
        self._cluster = cluster
        self._desired = DesiredState(connection)
        self._departed = Statistics(connection)
        self._loading = asyncio.Lock()

    @property
    def settled(self) -> bool:
        """Whether at least one replica is ready for rows."""
        return any(member.usable for member in self._cluster.members.values())

    def _controls(self) -> dict[str, Control]:
        """Control stubs of the members that are there. Raises Unavailable where there is none."""
        usable = {id_ for id_, member in self._cluster.members.items() if member.usable}
        found = {id_: control for id_, control in self._cluster.controls().items() if id_ in usable}
        if not found:
            raise Unavailable("no replica is ready; retry in 1 s", retry_after_s=1.0)
        return found

    async def load(self, model: str, config: str) -> None:
        """Load what the version policy asks for on every replica, then retire what it no longer wants.

        One replica after the other, so that the rest keep serving; requests change over when the new version is ready
        on all. Where one replica refuses, the others give the new version up again.
        """
        async with self._loading:
            controls = self._controls()
            before = {pool for member in self._cluster.members.values() for pool in member.descriptions}
            loaded: dict[str, pb.LoadModelResponse] = {}
            refusals: list[ServingError] = []
            for id_, control in controls.items():
                try:
                    loaded[id_] = await control.load(model, config)
                    await self._cluster.describe(id_)
                except NotFound as error:
                    refusals.append(error)
                except ServingError:
                    known = {pool.version for pool in before if pool.model == model}
                    await self._give_up(controls, model, loaded, known)
                    raise
            if not loaded:
                raise refusals[0]
            await self._remember(model, Action.LOAD, config)
            superseded = sorted({version for answer in loaded.values() for version in answer.superseded})
            if superseded:
                await self._unload(controls, model, superseded)

    async def _give_up(
        self, controls: dict[str, Control], model: str, loaded: dict[str, pb.LoadModelResponse], known: set[int]
    ) -> None:
        for id_, answer in loaded.items():
            fresh = [version for version in answer.versions if version not in known]
            if fresh:
                await self._unload({id_: controls[id_]}, model, fresh)

    async def unload(self, model: str) -> None:
        """Retire all versions of a model on every replica. Raises NotFound where nobody serves it."""
        async with self._loading:
            controls = self._controls()
            served = {pool.model for member in self._cluster.members.values() for pool in member.descriptions}
            if model not in served:
                raise NotFound(f"model '{model[:200]}' is not served")
            await self._remember(model, Action.UNLOAD, "")
            await self._unload(controls, model, ())

    async def _unload(self, controls: dict[str, Control], model: str, versions: Iterable[int]) -> None:
        await asyncio.gather(*(control.unload(model, versions) for control in controls.values()))
        await asyncio.gather(*(self._cluster.describe(id_) for id_ in controls), return_exceptions=True)

    async def _remember(self, model: str, action: Action, config: str) -> None:
        """So that replicas that start later do the same; without Redis it holds for those that live now."""
        try:
            await self._desired.set(model, action, config.encode())
        except (RedisAway, RedisRefused) as error:
            log.warning("desired.unwritten", model=model, error=str(error))

    async def index(self) -> list[Index]:
        """All models and versions of the repository; where replicas differ, the best state."""
        answers = await _from_all([control.index() for control in self._controls().values()])
        best: dict[tuple[str, str], Index] = {}
        for answer in answers:
            for item in answer.models:
                known = best.get((item.name, item.version))
                if known is None or _STATES.index(item.state) < _STATES.index(known.state):
                    best[item.name, item.version] = item
        return [best[key] for key in sorted(best)]

    async def statistics(self, model: str, version: int) -> list[grpc_service_pb2.ModelStatistics]:
        """Sums over all replicas, those that have left since included as far as Redis remembers them."""
        controls = self._controls()
        answers = await _from_all([control.statistics(model, version) for control in controls.values()])
        parts: dict[tuple[str, str], list[grpc_service_pb2.ModelStatistics]] = {}
        for answer in answers:
            for item in answer.models:
                parts.setdefault((item.name, item.version), []).append(item)
        for (name, number), items in parts.items():
            items.extend(await self._of_departed(name, int(number), set(controls)))
        return [add_up(parts[key]) for key in sorted(parts)]

    async def _of_departed(self, model: str, version: int, present: set[str]) -> list[grpc_service_pb2.ModelStatistics]:
        try:
            snapshots = await self._departed.of(model, version)
        except (RedisAway, RedisRefused):
            return []
        return list(readable(snapshot for replica, snapshot in snapshots.items() if replica not in present))


async def _from_all(calls: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """Answers of all replicas that give one. Raises Unavailable where none does."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    if not good:
        raise Unavailable("no replica answered; retry in 1 s", retry_after_s=1.0)
    return good
