"""Stages at work: side by side, one after the other on the next micro-batch, several replicas each, and never of two plans."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.coord.connection import Connection
from shardline.coord.status import cluster_view
from shardline.wire.client import CallFailed
from tests import onnx_models
from tests.cluster_process import eventually
from tests.integration.split.graphs import CASES
from tests.integration.split.staged_cluster import Split, StagedCluster, ask, cut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shardline.coord.status import ClusterView
    from shardline.wire.client import Answer

pytestmark = pytest.mark.timeout(400)

SLOW = {"device": "simulated", "simulated_alpha_s": "0.5", "simulated_beta_s": "0"}
"""Long enough to be seen at work: a replica tells its load every 10 ms."""


def view_of(cluster: StagedCluster) -> ClusterView:
    """What Redis knows now."""

    async def read() -> ClusterView:
        async with Connection(cluster.redis_url, cluster.name) as connection:
            return await cluster_view(connection)

    return asyncio.run(read())


def running(cluster: StagedCluster, model: str) -> set[int]:
    """Stages of the model that execute rows now, by one look at all load reports."""
    return {pool.pool.stage for pool in view_of(cluster).pools if pool.pool.model == model and pool.running_rows}


@contextmanager
def pipeline(
    redis_url: str,
    folder: Path,
    model: str,
    replicas: tuple[int, ...],
    config: str,
    settings: dict[int, dict[str, str]],
) -> Iterator[StagedCluster]:
    """A cluster that serves one model of graphs.py in stages."""
    repository = folder / "repository"
    onnx_models.save(repository, model, 1, CASES[model].build(), config)
    cut(repository, model, len(replicas), folder / "plan")
    with StagedCluster(
        redis_url,
        repository,
        name=f"pipeline-{folder.name}",
        replicas=0,
        models=(model,),
        splits=[Split(model, folder / "plan", replicas, settings)],
        start_s=300.0,
    ) as cluster:
        yield cluster


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "shardline.{name}" value {{ string_value: "{value}" }} }}'


def test_two_branches_of_one_request_run_at_the_same_time_on_different_replicas(redis_url: str, tmp_path: Path) -> None:
    feeds, seen = CASES["branches"].feeds(1), threading.Event()

    def one_after_the_other(url: str) -> Answer:
        answer = ask(url, "branches", feeds)
        while not seen.is_set():
            answer = ask(url, "branches", feeds)
        return answer

    with (
        pipeline(redis_url, tmp_path, "branches", (1, 1, 1), "max_batch_size: 1", {0: SLOW, 1: SLOW}) as cluster,
        ThreadPoolExecutor(1) as pool,
    ):
        caller = pool.submit(one_after_the_other, cluster.url)
        try:
            eventually(lambda: running(cluster, "branches") == {0, 1}, "both branches have the one request's row", 60)
        finally:
            seen.set()
        receipt = {entry["stage"]: entry for entry in caller.result(60).receipt}
    assert list(receipt) == ["0", "1", "2"]
    assert receipt["0"]["replica"] != receipt["1"]["replica"]


def test_a_large_request_is_cut_into_micro_batches_and_each_stage_works_on_another_one(
    redis_url: str, tmp_path: Path
) -> None:
    config = f"max_batch_size: 16 {parameter('micro_batch', '4')} {parameter('buckets', '4,16')}"
    feeds = CASES["skips"].feeds(32)
    with (
        pipeline(redis_url, tmp_path, "skips", (1, 1, 1), config, {0: SLOW, 1: SLOW, 2: SLOW}) as cluster,
        ThreadPoolExecutor(1) as pool,
    ):
        caller = pool.submit(ask, cluster.url, "skips", feeds)
        eventually(lambda: running(cluster, "skips") == {0, 1, 2}, "all stages have rows of the one request")
        answer = caller.result(60)
        alone = ask(cluster.url, "skips", {"x": feeds["x"][:1]})
    assert np.allclose(answer["y"][:1], alone["y"], rtol=1e-5)
    receipt = answer.receipt
    by_stage = {stage: [entry for entry in receipt if entry["stage"] == str(stage)] for stage in range(3)}
    assert {entry["batch_rows"] for entry in receipt} == {"4"}
    assert {stage: len(entries) for stage, entries in by_stage.items()} == {0: 8, 1: 8, 2: 8}


def test_a_stage_leaves_half_of_the_callers_rows_to_the_other(redis_url: str, tmp_path: Path) -> None:
    row = {"device": "simulated", "simulated_alpha_s": "0.002", "simulated_beta_s": "0.02"}
    feeds, callers = CASES["half"].feeds(1), 8
    with (
        pipeline(redis_url, tmp_path, "half", (1, 1), "max_batch_size: 16", {0: row, 1: row}) as cluster,
        ThreadPoolExecutor(callers) as pool,
    ):
        answers = list(pool.map(lambda _: ask(cluster.url, "half", feeds), range(20 * callers)))
    sizes = [int(entry["batch_rows"]) for answer in answers[5 * callers :] for entry in answer.receipt]
    assert max(sizes) <= callers // 2, "a stage that takes all rows leaves the other without work"
    assert max(sizes) > 1


def test_all_replicas_of_a_stage_take_their_share(redis_url: str, tmp_path: Path) -> None:
    with pipeline(redis_url, tmp_path, "half", (2, 1), "max_batch_size: 4", {}) as cluster:
        seen: dict[str, set[str]] = {"0": set(), "1": set()}
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda _: ask(cluster.url, "half", CASES["half"].feeds(1)), range(80)):
                for entry in answer.receipt:
                    seen[entry["stage"]].add(entry["replica"])
        pools = {str(pool.pool): pool.ready for pool in view_of(cluster).pools}
    assert {stage: len(replicas) for stage, replicas in seen.items()} == {"0": 2, "1": 1}
    assert pools == {"half:1/0": 2, "half:1/1": 1}


def test_stages_of_different_plans_never_serve_together(redis_url: str, tmp_path: Path) -> None:
    repository, feeds = tmp_path / "repository", CASES["half"].feeds(1)
    onnx_models.save(repository, "half", 1, CASES["half"].build(), "max_batch_size: 4")
    splits = []
    for at, batch in enumerate((1, 2)):
        cut(repository, "half", 2, tmp_path / f"plan-{at}", batch=batch)
        splits.append(Split("half", tmp_path / f"plan-{at}", (1, 1)))
    with StagedCluster(redis_url, repository, name="plans", replicas=0, start_s=300.0) as cluster:
        cluster.start_stage(splits[0], 0)
        cluster.start_stage(splits[1], 1)
        cluster.wait_ready()
        eventually(lambda: _failure(cluster.url, feeds).startswith("UNAVAILABLE"), "both stages are known")
        assert "retry in" in _failure(cluster.url, feeds)
        cluster.start_stage(splits[0], 1)
        eventually(lambda: not _failure(cluster.url, feeds), "the plan with both its stages serves", 60)


def _failure(url: str, feeds: Any) -> str:
    try:
        ask(url, "half", feeds)
    except CallFailed as failure:
        return str(failure)
    return ""


def test_a_replica_refuses_an_itinerary_of_another_plan(cluster: StagedCluster) -> None:
    """As a router would send it that knows only the old plan."""
    message = asyncio.run(_refusal_of(cluster, "sha256:another"))
    assert "plan 'sha256:another', this replica serves plan 'sha256:" in message


async def _refusal_of(cluster: StagedCluster, plan: str) -> str:
    from shardline.pb.shardline.v1 import replica_pb2 as pb
    from shardline.wire.link import PROTOCOL, LinkClient, LinkContext

    async with Connection(cluster.redis_url, cluster.name) as connection:
        view = await cluster_view(connection)
    info = next(
        seen.info for seen in view.replicas.values() if any(str(pool) == "half:1/0" for pool in seen.info.pools)
    )
    up, refused = asyncio.Event(), asyncio.get_running_loop().create_future()

    def receive(_peer: bytes, header: bytes, _frames: Any) -> None:
        for refusal in pb.FromReplica.FromString(header).refusals:
            refused.set_result((refusal.reason, refusal.message))

    context = LinkContext(b"a-test")
    link = LinkClient(context, info.link, receive, up.set, lambda: None)
    try:
        await asyncio.wait_for(up.wait(), 10)
        head = pb.RowHead(model="half", version=1, itinerary=pb.Itinerary(plan=plan, reply_to=b"a-test"))
        head.inputs.add(name="x", datatype="FP16", dims=[8])
        message = pb.ToReplica(protocol=PROTOCOL)
        message.groups.add(head=head.SerializeToString(), calls=[1], rows=[1], columns=[b"\0" * 16])
        assert link.send(message.SerializeToString(), [])
        reason, text = await asyncio.wait_for(refused, 10)
    finally:
        link.close()
        context.close()
    assert reason == "plan_mismatch"
    return str(text)
