"""Stages of a split model that die, slow down, are replaced by those of a new plan, or lose Redis, while callers go on."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from shardline.coord.connection import Connection
from shardline.coord.status import cluster_view
from tests import onnx_models
from tests.cluster_process import STOP_S, eventually
from tests.faults.load import Load, times
from tests.integration.split.staged_cluster import Split, StagedCluster, ask, cut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster_process import Member
    from tests.redis_server import RedisServer

pytestmark = pytest.mark.timeout(500)

MODEL = "factors"
FACTOR = 16
LINKS_UP = 'shardline_links{state="up"}'
PACE = {"device": "simulated", "simulated_alpha_s": "0.003", "simulated_beta_s": "0.0002"}
"""The real stage at the pace of a larger one: at any moment rows are queued, running and between stages."""


def factors() -> onnx.ModelProto:
    """y = x · 16 by four products with 2, which no float rounds."""
    weights = [numpy_helper.from_array(np.array(2, np.float32), f"two{at}") for at in range(4)]
    nodes = [
        helper.make_node(
            "Mul", [f"h{at - 1}" if at else "x", f"two{at}"], ["y" if at == 3 else f"h{at}"], name=f"n{at}"
        )
        for at in range(4)
    ]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "factors", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@contextmanager
def staged(
    redis: RedisServer,
    folder: Path,
    replicas: tuple[int, int],
    *,
    config: str = "max_batch_size: 8",
    settings: dict[int, dict[str, str]] | None = None,
    routers: int = 1,
) -> Iterator[tuple[StagedCluster, Split]]:
    """A cluster of one model in two stages, and how it is split."""
    repository = folder / "repository"
    onnx_models.save(repository, MODEL, 1, factors(), config)
    cut(repository, MODEL, 2, folder / "plan")
    split = Split(MODEL, folder / "plan", replicas, settings or {0: PACE, 1: PACE})
    cluster = StagedCluster(
        redis.url,
        repository,
        front="native",
        routers=routers,
        replicas=0,
        models=(MODEL,),
        splits=[split],
        start_s=300.0,
    )
    with cluster:
        try:
            yield cluster, split
        except BaseException:
            print(cluster.logs())
            raise


def load_of(cluster: StagedCluster, **options: Any) -> Load:
    return Load(cluster.url, MODEL, times(FACTOR), **options)


def kill(member: Member) -> None:
    os.kill(member.pid, signal.SIGKILL)
    member.process.wait(STOP_S)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_dead_replica_of_a_stage_costs_no_client_an_error_where_the_stage_has_another(
    redis: RedisServer, tmp_path: Path, stage: int
) -> None:
    with staged(redis, tmp_path, (2, 2)) as (cluster, _):
        router = cluster.role("router")[0]
        with load_of(cluster, rows=(1, 2, 20)) as load:
            kill(cluster.stages[MODEL, stage][0])
            eventually(lambda: router.value(LINKS_UP) == 3, "the router noticed")
            load.more_answers(100)
            load.at_least()
        print(load.seen)
        assert (load.seen.errors, load.seen.wrong) == ({}, [])
        assert router.value("shardline_retries_total") > 0  # rows were there when it died, and ran elsewhere


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_without_a_replica_is_unavailable_with_a_hint_until_it_is_back_and_then_serves_by_itself(
    redis: RedisServer, tmp_path: Path, stage: int
) -> None:
    with staged(redis, tmp_path, (1, 1)) as (cluster, split):
        with load_of(cluster, callers=8, pause_s=0.02) as load:
            kill(cluster.stages[MODEL, stage][0])
            eventually(lambda: load.seen.statuses["UNAVAILABLE"] >= 50, lambda: str(load.seen))
            cluster.start_stage(split, stage)
            load.more_answers(100, timeout_s=120.0)
            after = load.seen.statuses.total()
            load.more_answers(100)
            assert load.seen.statuses.total() == after
        print(load.seen)
        assert set(load.seen.statuses) == {"UNAVAILABLE"}
        assert all("retry in" in text for text in load.seen.errors), load.seen.errors
        assert load.seen.wrong == []


def test_itineraries_go_on_without_redis_also_when_a_stage_loses_a_replica_meanwhile(
    redis: RedisServer, tmp_path: Path
) -> None:
    with staged(redis, tmp_path, (2, 2)) as (cluster, _):
        router = cluster.role("router")[0]
        with load_of(cluster, rows=(1, 2)) as load:
            redis.kill()
            eventually(lambda: router.value("shardline_redis_connected") == 0, "the router noticed")
            load.more_answers(100)
            kill(cluster.stages[MODEL, 1][0])
            eventually(lambda: router.value(LINKS_UP) == 3, "the router noticed")
            load.more_answers(100)
            load.at_least()
        print(load.seen)
        assert (load.seen.errors, load.seen.wrong) == ({}, [])


def test_a_slow_last_stage_bounds_its_queue_and_memory_and_the_router_refuses_early(
    redis: RedisServer, tmp_path: Path
) -> None:
    limit_rows = 48
    config = f'max_batch_size: 8 parameters {{ key: "shardline.queue_rows" value {{ string_value: "{limit_rows}" }} }}'
    slow = {**PACE, "simulated_alpha_s": "0.1"}
    with staged(redis, tmp_path, (1, 1), config=config, settings={0: PACE, 1: slow}) as (cluster, _):
        members = [*cluster.role("replica"), *cluster.role("router")]
        with load_of(cluster, callers=96, rows=(1, 2)) as load:
            load.more_answers(100)
            before = {member.pid: member.resident_bytes() for member in members}
            deepest = 0.0
            for _ in range(20):
                load.more_answers(16)
                deepest = max(deepest, *(_queued(cluster, stage) for stage in (0, 1)))
            grown = {member.role: member.resident_bytes() - before[member.pid] for member in members}
        print(load.seen, deepest, grown)
        assert set(load.seen.statuses) == {"RESOURCE_EXHAUSTED"}
        assert all("retry in" in text for text in load.seen.errors), load.seen.errors
        assert load.seen.wrong == []
        assert 0 < deepest <= limit_rows
        assert max(grown.values()) < 64 << 20


def _queued(cluster: StagedCluster, stage: int) -> float:
    return max(member.value(f'shardline_queue_rows{{model="{MODEL}"') for member in cluster.stages[MODEL, stage])


def test_a_stage_rolling_to_a_new_plan_never_mixes_with_the_old_one(redis: RedisServer, tmp_path: Path) -> None:
    with staged(redis, tmp_path, (1, 1)) as (cluster, old):
        cut(tmp_path / "repository", MODEL, 2, tmp_path / "new", batch=2)
        new = Split(MODEL, tmp_path / "new", (1, 1), old.settings)
        leaving = cluster.role("replica")
        with load_of(cluster, callers=16) as load:
            coming = [cluster.start_stage(new, 1)]
            eventually(lambda: len(_replicas(cluster)) == 3, "the new last stage has joined", 120)
            load.more_answers(50)
            coming.append(cluster.start_stage(new, 0))
            eventually(lambda: len(_replicas(cluster)) == 4, "the new first stage has joined", 120)
            plans = _replicas(cluster)
            load.more_answers(50)
            assert len(_plans_of_answers(cluster, plans, leaving)) == 1
            for member in leaving:
                member.process.send_signal(signal.SIGTERM)
                assert member.process.wait(STOP_S) == 0
                load.more_answers(50)
            assert _plans_of_answers(cluster, plans, leaving) == {"new"}
        print(load.seen)
        assert (load.seen.errors, load.seen.wrong) == ({}, [])


def _replicas(cluster: StagedCluster) -> dict[str, int]:
    """Replicas that Redis knows as ready: id to process id."""

    async def read() -> dict[str, int]:
        async with Connection(cluster.redis_url, cluster.name) as connection:
            view = await cluster_view(connection)
        return {name: seen.info.pid for name, seen in view.replicas.items() if seen.info.state == "ready"}

    return asyncio.run(read())


def _plans_of_answers(cluster: StagedCluster, replicas: dict[str, int], old: list[Member]) -> set[str]:
    """Ask twenty times; which plan each answer was of. An answer of two plans fails the test."""
    before = {member.pid for member in old}
    plans = set()
    for _ in range(20):
        receipt = ask(cluster.url, MODEL, {"x": np.ones((1, 4), np.float32)}).receipt
        used = {"old" if replicas[entry["replica"]] in before else "new" for entry in receipt}
        assert len(used) == 1, receipt
        plans |= used
    return plans
