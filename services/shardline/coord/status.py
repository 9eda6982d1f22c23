"""The whole cluster at a glance, for `shardline status` and the controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.coord.codec import REPLICA, ROUTER, Desired
from shardline.coord.desired import DesiredState
from shardline.coord.watch import Sighting, survey
from shardline.core.cluster import PoolKey, ReplicaInfo, ReplicaState, RouterInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shardline.coord.connection import Connection


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool in sums over its members. rows count; ready, starting and draining count members."""

    pool: PoolKey
    ready: int
    starting: int
    draining: int
    queue_rows: int
    running_rows: int

    @property
    def serving(self) -> bool:
        """Whether a request would find a replica."""
        return self.ready > 0


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """Redis itself. ping_s: seconds of a round trip. memory_bytes: used by all its tenants."""

    where: str
    ping_s: float
    version: str
    memory_bytes: int
    up_s: int


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Who is alive, what waits where, what is wanted; routers and replicas by id."""

    cluster: str
    routers: Mapping[str, Sighting[RouterInfo]]
    replicas: Mapping[str, Sighting[ReplicaInfo]]
    pools: tuple[PoolView, ...]
    desired: Mapping[str, Desired]
    redis: RedisHealth


async def cluster_view(connection: Connection) -> ClusterView:
    """Read everything, in a handful of commands. Raises RedisAway."""
    ping_s = await connection.ping()
    routers = (await survey(connection, ROUTER)).sightings or {}
    replicas = (await survey(connection, REPLICA)).sightings or {}
    desired = await DesiredState(connection).all()
    info = await connection.command("INFO")
    health = RedisHealth(
        connection.where,
        ping_s,
        str(info.get("redis_version", "")),
        int(info.get("used_memory", 0)),
        int(info.get("uptime_in_seconds", 0)),
    )
    return ClusterView(connection.keys.cluster, routers, replicas, pools_of(replicas.values()), desired, health)


def pools_of(replicas: Iterable[Sighting[ReplicaInfo]]) -> tuple[PoolView, ...]:
    """Sum the members up by pool, in the order of the pools. Pure."""
    by_pool: dict[PoolKey, list[Sighting[ReplicaInfo]]] = {}
    for replica in replicas:
        for pool in replica.info.pools:
            by_pool.setdefault(pool, []).append(replica)
    return tuple(_sum_up(pool, members) for pool, members in sorted(by_pool.items()))


def _sum_up(pool: PoolKey, members: list[Sighting[ReplicaInfo]]) -> PoolView:
    states = [member.info.state for member in members]
    loads = [member.loads[pool] for member in members if pool in member.loads]
    return PoolView(
        pool,
        ready=states.count(ReplicaState.READY),
        starting=states.count(ReplicaState.STARTING),
        draining=states.count(ReplicaState.DRAINING),
        queue_rows=sum(load.queue_rows for load in loads),
        running_rows=sum(load.running_rows for load in loads),
    )
