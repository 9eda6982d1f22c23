"""Redis is killed and comes back empty, while callers go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shardline.coord.connection import Connection
from shardline.coord.status import ClusterView, cluster_view
from shardline.core.cluster import ReplicaState
from tests.cluster_process import eventually
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster_process import ClusterProcess
    from tests.redis_server import RedisServer

WHOLE_WITHIN_S = 5.0
"""A promise: `shardline status` is whole again so many seconds after Redis came back empty."""
REDIS_UP = "shardline_redis_connected"


def read(redis: RedisServer, cluster: ClusterProcess) -> ClusterView:
    async def once() -> ClusterView:
        async with Connection(redis.url, cluster.name) as connection:
            return await cluster_view(connection)

    return asyncio.run(once())


def is_whole(view: ClusterView, routers: int, replicas: int) -> bool:
    """Whether everybody is back, ready, and serves the model."""
    return (
        [seen.info.state for seen in view.routers.values()] == [ReplicaState.READY] * routers
        and [seen.info.state for seen in view.replicas.values()] == [ReplicaState.READY] * replicas
        and [pool.ready for pool in view.pools] == [replicas]
    )


def test_redis_killed_and_restarted_empty_costs_no_client_an_error(
    redis: RedisServer, start: Callable[..., ClusterProcess]
) -> None:
    cluster = start(front="native", routers=2, replicas=2)
    routers = cluster.role("router")
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2)) as load:
        redis.kill()
        eventually(lambda: all(router.value(REDIS_UP) == 0 for router in routers), "the routers noticed")
        load.more_answers(100)
        redis.start()
        eventually(lambda: is_whole(read(redis, cluster), 2, 2), lambda: str(read(redis, cluster)), WHOLE_WITHIN_S)
        load.more_answers(100)
        load.at_least()
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])
    eventually(lambda: all(router.value(REDIS_UP) == 1 for router in routers), "the routers are back at Redis")
