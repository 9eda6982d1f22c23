"""Callers that give up at random, beside callers that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.cluster_process import eventually
from tests.faults.conftest import FRONTS
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster_process import ClusterProcess

GROWTH_BYTES = 64 << 20
"""A leak of every request would be more: some thousand requests, of which each holds some ten kilobytes for a while."""

IN_FLIGHT = ('shardline_rows_in_flight{model="versioned"}', "shardline_bytes_in_flight")


def executed_rows(cluster: ClusterProcess) -> int:
    """Rows that the replicas ran, by the statistics that clients read."""
    with grpc.insecure_channel(cluster.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelStatistics(pb.ModelStatisticsRequest(name="versioned"), timeout=15)
    return int(answer.model_stats[0].inference_count)


@pytest.mark.parametrize("front", FRONTS)
def test_callers_that_give_up_change_no_neighbours_answer_and_leave_nothing_behind(
    start: Callable[..., ClusterProcess], front: str
) -> None:
    cluster = start(front=front)
    (router,), (replica,) = cluster.role("router"), cluster.role("replica")
    before = executed_rows(cluster)
    with Load(cluster.url, "versioned", wholly_one_version, callers=48, cancel_share=0.5, cancel_within_s=0.01) as load:
        load.more_answers(200)
        memory = {member.pid: member.resident_bytes() for member in (router, replica)}
        eventually(lambda: all(router.value(gauge) > 0 for gauge in IN_FLIGHT), router.metrics)
        load.at_least()
    seen = load.seen
    executed = executed_rows(cluster) - before
    print(seen, f"executed {executed}")
    assert (seen.errors, seen.wrong) == ({}, [])
    assert seen.cancelled > 200
    # Rows that were cancelled while they ran are executed; those that waited or were on their way are not.
    assert executed - seen.answers <= seen.cancelled / 2
    eventually(lambda: [router.value(gauge) for gauge in IN_FLIGHT] == [0, 0], router.metrics)
    eventually(lambda: replica.value("shardline_queue_rows") == 0, replica.metrics)
    assert replica.value('shardline_dropped_rows_total{model="versioned",version="1",reason="cancelled"}') > 0
    for member in (router, replica):
        assert member.resident_bytes() < memory[member.pid] + GROWTH_BYTES
