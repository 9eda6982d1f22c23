"""How replicas and routers take part: announced, renewed, withdrawn. Nothing here waits for Redis but `run()`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from shardline.coord.codec import REPLICA, ROUTER, Desired
from shardline.coord.desired import DesiredFollower
from shardline.coord.lease import Beat, Lease
from shardline.coord.load import LoadPublisher
from shardline.coord.statistics import StatisticsWriter

if TYPE_CHECKING:
    from shardline.coord.connection import Connection
    from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo, ReplicaState, RouterInfo

OnDesired = Callable[[Mapping[str, Desired]], Awaitable[None]]


class Membership:
    """A replica's part: its lease, load reports, statistics, and what it learns of desired models.

    `run()` until the process ends: it announces the replica, beats through any failure of Redis, announces everything
    again when Redis comes back empty, and withdraws when cancelled. The setters return at once.
    beat_s, lease_s: see Lease. load_s: least time between two load reports. on_desired: awaited with what is wanted of
    each model, at the first beat and whenever it changes.
    """

    def __init__(
        self,
        connection: Connection,
        info: ReplicaInfo,
        *,
        beat_s: float = 1.0,
        lease_s: float = 4.0,
        load_s: float = 0.010,
        on_desired: OnDesired | None = None,
        statistics: StatisticsWriter | None = None,
    ) -> None:
        self.load = LoadPublisher(connection, info.id, interval_s=load_s)
        self.statistics = statistics or StatisticsWriter(connection, info.id)
        self._follower = DesiredFollower(connection)
        self._on_desired = on_desired
        self._lease = Lease(
            connection,
            REPLICA,
            info,
            beat_s=beat_s,
            lease_s=lease_s,
            loads=self.load.encoded,
            on_beat=self._after_beat,
        )

    @property
    def info(self) -> ReplicaInfo:
        """What is announced, or will be with the next beat."""
        return self._lease.info

    def set_state(self, state: ReplicaState) -> None:
        """Announce another state at once: ready, draining."""
        if state is not self.info.state:
            self._lease.announce(replace(self.info, state=state))

    def set_pools(self, pools: Iterable[PoolKey]) -> None:
        """Announce other pools at once."""
        held = tuple(pools)
        if held != self.info.pools:
            self.load.forget(set(self.info.pools) - set(held))
            self._lease.announce(replace(self.info, pools=held))

    def report(self, loads: Mapping[PoolKey, LoadReport]) -> None:
        """Publish load reports of some pools soon, at most one message per load_s."""
        self.load.report(loads)

    def put_statistics(self, model: str, version: int, snapshot: bytes) -> None:
        """Store a model's cumulative statistics (opaque) with the next beat, if they changed."""
        self.statistics.put(model, version, snapshot)

    async def announced(self, timeout_s: float) -> bool:
        """Wait until a first beat arrived; False if none did in time."""
        return await self._lease.announced(timeout_s)

    async def run(self) -> None:
        """Take part until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.run(), name="coord.lease")
            tasks.create_task(self.load.run(), name="coord.load")

    async def _after_beat(self, beat: Beat) -> None:
        if beat.first:
            self.statistics.forgotten()
        await self.statistics.flush()
        if self._on_desired is not None and await self._follower.follow(beat.epoch, beat.revision):
            await self._on_desired(self._follower.known)


class RouterMembership:
    """A router's part: its lease. `run()` until the process ends."""

    def __init__(self, connection: Connection, info: RouterInfo, *, beat_s: float = 1.0, lease_s: float = 4.0) -> None:
        self._lease = Lease(connection, ROUTER, info, beat_s=beat_s, lease_s=lease_s)

    @property
    def info(self) -> RouterInfo:
        """What is announced, or will be with the next beat."""
        return self._lease.info

    def set_state(self, state: ReplicaState) -> None:
        """Announce another state at once."""
        if state is not self.info.state:
            self._lease.announce(replace(self.info, state=state))

    async def announced(self, timeout_s: float) -> bool:
        """Wait until a first beat arrived; False if none did in time."""
        return await self._lease.announced(timeout_s)

    async def run(self) -> None:
        """Take part until cancelled."""
        await self._lease.run()
