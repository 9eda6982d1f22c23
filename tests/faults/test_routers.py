"""One of two routers on the port is told to end, while callers go on."""

from __future__ import annotations

import contextlib
import queue
import signal
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.cluster_process import STOP_S
from tests.faults.conftest import FRONTS
from tests.faults.load import Load, wholly_one_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster_process import ClusterProcess

CHANNELS = 24
"""So many that each of two routers gets some: the kernel deals connections out by their addresses."""


@contextlib.contextmanager
def open_stream(channel: grpc.Channel) -> Iterator[Iterator[pb.ModelStreamInferResponse]]:
    """The answers of a ModelStreamInfer on which one request was sent, and which stays open."""
    request = pb.ModelInferRequest(model_name="versioned")
    request.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    request.raw_input_contents.append(np.zeros((1, 4), np.float32).tobytes())
    requests: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
    requests.put(request)
    yield service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests.get, None))
    requests.put(None)


@pytest.mark.parametrize("front", FRONTS)
def test_a_router_that_ends_loses_no_call(start: Callable[..., ClusterProcess], front: str) -> None:
    cluster = start(front=front, routers=2, replicas=2)
    leaving = cluster.role("router")[0]
    with Load(cluster.url, "versioned", wholly_one_version, rows=(1, 2), channels=CHANNELS, pause_s=0.0) as load:
        load.more_answers(200)
        assert leaving.value("shardline_requests_total") > 0
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(STOP_S) == 0
        load.more_answers(100)
        load.at_least()
    print(load.seen)
    assert (load.seen.errors, load.seen.wrong) == ({}, [])


@pytest.mark.parametrize("front", FRONTS)
def test_streams_on_which_nothing_happens_do_not_hold_up_a_router_that_ends(
    start: Callable[..., ClusterProcess], front: str
) -> None:
    cluster = start(front=front, router={"drain_s": "100"})
    (leaving,) = cluster.role("router")
    with grpc.insecure_channel(cluster.url) as channel, open_stream(channel) as answers:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert next(answers).infer_response.model_name == "versioned"
        leaving.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert leaving.process.wait(STOP_S) == 0
        for stream in (watch, answers):
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
