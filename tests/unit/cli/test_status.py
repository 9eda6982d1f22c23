"""How a cluster is told at a glance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shardline.cli.status import missing_stages, pool_row, replica_row, router_row, verdict, view_json
from shardline.coord.status import ClusterView, RedisHealth, pools_of
from shardline.coord.watch import Sighting
from shardline.core.cluster import LoadReport, PoolKey, ReplicaInfo, ReplicaState, RouterInfo

POOL = PoolKey("digits", 1)
ROUTER = RouterInfo(
    "g-1", "127.0.0.1:8001", ReplicaState.READY, "native", "laptop", 10, 1000.0, metrics="127.0.0.1:8002"
)
REPLICA = ReplicaInfo(
    id="r-1",
    control="unix:/x.ctl",
    link="ipc:///x.link",
    state=ReplicaState.READY,
    pools=(POOL,),
    device="cpu",
    host="laptop",
    pid=11,
    started_at=1000.0,
)
LOADS = {POOL: LoadReport(queue_rows=5, running_rows=8)}


def view(*replicas: ReplicaInfo, routers: tuple[RouterInfo, ...] = (ROUTER,)) -> ClusterView:
    seen = {info.id: Sighting(info, 3.5, LOADS) for info in replicas}
    return ClusterView(
        "default",
        {info.id: Sighting(info, 3.0, {}) for info in routers},
        seen,
        pools_of(seen.values()),
        {},
        RedisHealth("/run/redis.sock", 0.0002, "7.2", 3 << 20, 60),
    )


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (view(REPLICA), "healthy"),
        (view(REPLICA, routers=()), "no router is ready"),
        (view(REPLICA, routers=(replace(ROUTER, state=ReplicaState.DRAINING),)), "no router is ready"),
        (view(), "no replica is alive"),
        (view(replace(REPLICA, state=ReplicaState.DRAINING)), "nobody serves digits:1/0"),
        (view(replace(REPLICA, pools=())), "no model is loaded"),
    ],
)
def test_the_verdict_tells_the_worst_first(cluster: ClusterView, words: str) -> None:
    assert words in verdict(cluster)


def test_a_stage_that_nobody_executes_is_told_although_redis_does_not_know_it() -> None:
    cluster = view(replace(REPLICA, pools=(PoolKey("split", 2, 1), POOL)))
    assert missing_stages(cluster, {}) == (PoolKey("split", 2, 0),)
    missing = missing_stages(cluster, {"split:2": 3, "other:1": 1})
    assert missing == (PoolKey("other", 1), PoolKey("split", 2, 0), PoolKey("split", 2, 2))
    assert verdict(cluster, missing) == "nobody serves other:1/0, split:2/0, split:2/2"
    assert view_json(cluster, missing)["health"] == verdict(cluster, missing)


def test_rows_show_what_waits_and_for_how_long_each_has_been_up() -> None:
    cluster = view(REPLICA)
    assert replica_row(cluster.replicas["r-1"], 1090.0) == (
        "r-1",
        "ready",
        "cpu",
        "digits:1/0",
        "5",
        "8",
        "11",
        "90 s",
        "",
    )
    assert router_row(cluster.routers["g-1"], 999.0)[-2:] == ("0 µs", "127.0.0.1:8002")
    assert pool_row(cluster.pools[0]) == ("digits:1/0", "1", "0", "0", "5", "8")


def test_json_holds_the_same_facts() -> None:
    document = json.loads(json.dumps(view_json(view(REPLICA))))
    assert document["health"] == "healthy"
    assert document["replicas"][0] | {"pid": 11} == document["replicas"][0]
    assert document["pools"] == [
        {"pool": "digits:1/0", "ready": 1, "starting": 0, "draining": 0, "queue_rows": 5, "running_rows": 8}
    ]
    assert document["redis"]["memory_bytes"] == 3 << 20
