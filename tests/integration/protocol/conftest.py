"""One cluster per front, for all tests of this folder: a router and a replica, whose one executor can be kept busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2_grpc

from tests.cluster_process import ClusterProcess
from tests.integration.protocol.repository import READY, build
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

FRONTS = ("native", "grpcio")
MAX_MESSAGE_BYTES = 1 << 20


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session", params=FRONTS)
def cluster(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterProcess]:
    repository = build(tmp_path_factory.mktemp("repository"))
    with ClusterProcess(
        redis_url,
        repository,
        front=request.param,
        name=f"protocol-{request.param}",
        models=READY,
        router={"max_message_bytes": str(MAX_MESSAGE_BYTES)},
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: ClusterProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(cluster.url) as client:
        yield client


@pytest.fixture
def stub(cluster: ClusterProcess) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(cluster.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def _logs_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the cluster wrote when a test failed."""
    failures = request.session.testsfailed
    yield
    if request.session.testsfailed > failures and "cluster" in request.fixturenames:
        print(request.getfixturevalue("cluster").logs())
