"""`status`: who is alive, what waits where, from Redis."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardline.cli.failure import EXIT_USAGE, Failure
from shardline.cli.kube import kube_release, model_row, stages_of
from shardline.cli.render import duration_text, print_json, print_table
from shardline.cli.target import Target, find_target
from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.status import ClusterView, cluster_view
from shardline.core.cluster import PoolKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shardline.coord.status import PoolView
    from shardline.coord.watch import Sighting
    from shardline.core.cluster import ReplicaInfo, RouterInfo


def run_status(redis: str | None, url: str | None, cluster: str | None, *, as_json: bool) -> None:
    """`shardline status`."""
    view, stages, models = asyncio.run(_look(_which(redis, url, cluster), cluster))
    missing = missing_stages(view, stages)
    if as_json:
        print_json(view_json(view, missing) | ({"models": [item["status"] for item in models]} if models else {}))
        return
    now = time.time()
    health = view.redis
    print_table(
        ("router", "state", "address", "front", "pid", "up", "metrics"),
        [router_row(seen, now) for seen in view.routers.values()],
    )
    print_table(
        ("replica", "state", "device", "models", "waiting", "running", "pid", "up", "metrics"),
        [replica_row(seen, now) for seen in view.replicas.values()],
    )
    print_table(
        ("pool", "ready", "starting", "draining", "waiting", "running"),
        [*(pool_row(pool) for pool in view.pools), *((str(pool), *"00000") for pool in missing)],
    )
    if models:
        print_table(("model", "ready", "replicas", "version", "rate", "p99", "why"), list(map(model_row, models)))
    sys.stdout.write(
        f"Cluster {view.cluster}: {verdict(view, missing)}. Redis {health.version} at {health.where}: answers in "
        f"{duration_text(health.ping_s)}, {health.memory_bytes / 2**20:.1f} MiB, up {duration_text(health.up_s)}.\n"
    )


def _which(redis: str | None, url: str | None, cluster: str | None) -> Target:
    if redis is not None:
        return Target("", redis, cluster or "default", found=False)
    target = find_target(url)
    if not target.found and target.kube is None:
        where = f"at {url}" if url else "on this machine"
        raise Failure(f"no cluster of yours runs {where}; name its Redis with --redis URL")
    return replace(target, cluster=cluster or target.cluster)


async def _look(target: Target, cluster: str | None) -> tuple[ClusterView, Mapping[str, int], list[dict[str, Any]]]:
    """(what Redis says, stages of split models, Model objects of Kubernetes)."""
    if target.kube is None:
        return await _read(target.redis, target.cluster), target.stages, []
    async with kube_release(target.kube) as found, found.redis() as url:
        models = await found.models()
        return await _read(url, cluster or found.cluster), stages_of(models), models


async def _read(redis_url: str, cluster: str) -> ClusterView:
    try:
        async with Connection(redis_url, cluster) as connection:
            return await cluster_view(connection)
    except RedisAway as error:
        raise Failure(error.message) from error
    except ValueError as error:
        raise Failure(str(error), EXIT_USAGE) from error


def missing_stages(view: ClusterView, stages: Mapping[str, int]) -> tuple[PoolKey, ...]:
    """Stages that no replica is left of, not even one that starts: such a pool is not in Redis.

    stages: how many each split model has, by `model:version`; where that is not known, up to the last one that is there.
    """
    there = {pool.pool for pool in view.pools}
    counts = dict(stages)
    for pool in there:
        name = f"{pool.model}:{pool.version}"
        counts[name] = max(counts.get(name, 0), pool.stage + 1)
    expected = {PoolKey.parse(f"{name}/{stage}") for name, count in counts.items() for stage in range(count)}
    return tuple(sorted(expected - there))


def verdict(view: ClusterView, missing: Sequence[PoolKey] = ()) -> str:
    """The cluster's health in a few words, worst first. missing: as missing_stages finds them."""
    if not any(seen.info.state == "ready" for seen in view.routers.values()):
        return "no router is ready, callers get no answer"
    if not view.replicas:
        return "no replica is alive, every request is refused"
    dead = sorted([pool.pool for pool in view.pools if not pool.serving] + list(missing))
    if dead:
        return f"nobody serves {', '.join(map(str, dead))}"
    return "healthy" if view.pools else "no model is loaded"


def router_row(seen: Sighting[RouterInfo], now: float) -> tuple[str, ...]:
    """A row of the table of routers; now: Unix seconds."""
    info = seen.info
    up = duration_text(max(0.0, now - info.started_at))
    return (info.id, info.state, info.address, info.front, str(info.pid), up, info.metrics)


def replica_row(seen: Sighting[ReplicaInfo], now: float) -> tuple[str, ...]:
    """A row of the table of replicas; now: Unix seconds. waiting, running: rows over all its models."""
    info = seen.info
    return (
        info.id,
        info.state,
        info.device,
        "\n".join(str(pool) for pool in info.pools),
        str(sum(load.queue_rows for load in seen.loads.values())),
        str(sum(load.running_rows for load in seen.loads.values())),
        str(info.pid),
        duration_text(max(0.0, now - info.started_at)),
        info.metrics,
    )


def pool_row(pool: PoolView) -> tuple[str, ...]:
    """A row of the table of pools: members by state, rows by where they are."""
    counts = (pool.ready, pool.starting, pool.draining, pool.queue_rows, pool.running_rows)
    return (str(pool.pool), *(str(count) for count in counts))


def view_json(view: ClusterView, missing: Sequence[PoolKey] = ()) -> dict[str, Any]:
    """What `status --json` prints."""
    return {
        "cluster": view.cluster,
        "health": verdict(view, missing),
        "routers": [
            {
                "id": seen.info.id,
                "state": seen.info.state,
                "address": seen.info.address,
                "front": seen.info.front,
                "pid": seen.info.pid,
                "metrics": seen.info.metrics,
                "lease_s": seen.lease_s,
            }
            for seen in view.routers.values()
        ],
        "replicas": [
            {
                "id": seen.info.id,
                "state": seen.info.state,
                "device": seen.info.device,
                "pools": [str(pool) for pool in seen.info.pools],
                "queue_rows": sum(load.queue_rows for load in seen.loads.values()),
                "running_rows": sum(load.running_rows for load in seen.loads.values()),
                "pid": seen.info.pid,
                "metrics": seen.info.metrics,
                "lease_s": seen.lease_s,
            }
            for seen in view.replicas.values()
        ],
        "pools": [
            {
                "pool": str(pool.pool),
                "ready": pool.ready,
                "starting": pool.starting,
                "draining": pool.draining,
                "queue_rows": pool.queue_rows,
                "running_rows": pool.running_rows,
            }
            for pool in view.pools
        ],
        "redis": {
            "where": view.redis.where,
            "version": view.redis.version,
            "ping_s": view.redis.ping_s,
            "memory_bytes": view.redis.memory_bytes,
            "up_s": view.redis.up_s,
        },
    }
