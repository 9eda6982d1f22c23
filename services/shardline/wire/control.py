"""Control calls to a replica, for routers: its own errors come back as what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from shardline.core.errors import InvalidRequest, ModelRejected, NotFound, ServingError, Unavailable
from shardline.pb.shardline.v1 import control_pb2 as pb
from shardline.pb.shardline.v1 import control_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

Answer = TypeVar("Answer")

LOAD_S = 600.0
CALL_S = 5.0
_ERRORS: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: ModelRejected,
}


class Control:
    """One replica's control service. Every call has a deadline and raises ServingError."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = control_pb2_grpc.ReplicaControlStub(self._channel)

    async def describe(self) -> pb.DescribeResponse:
        """What the replica serves."""
        return await _mapped(self._stub.Describe(pb.DescribeRequest(), timeout=CALL_S))

    async def load(self, model: str, config: str) -> pb.LoadModelResponse:
        """Load what the version policy asks for. config: JSON in place of the file's, "" for the file's."""
        return await _mapped(self._stub.LoadModel(pb.LoadModelRequest(model=model, config=config), timeout=LOAD_S))

    async def unload(self, model: str, versions: Iterable[int]) -> None:
        """Retire versions, all where none is named."""
        await _mapped(self._stub.UnloadModel(pb.UnloadModelRequest(model=model, versions=versions), timeout=LOAD_S))

    async def index(self) -> pb.IndexResponse:
        """The repository as the replica sees it."""
        return await _mapped(self._stub.Index(pb.IndexRequest(), timeout=CALL_S))

    async def statistics(self, model: str, version: int) -> pb.StatisticsResponse:
        """Statistics since the replica's start; "" and 0 for all."""
        return await _mapped(self._stub.Statistics(pb.StatisticsRequest(model=model, version=version), timeout=CALL_S))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


async def _mapped(call: Awaitable[Answer]) -> Answer:
    """A call's answer; its failure as the error that the replica raised."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        kind = _ERRORS.get(error.code(), Unavailable)
        retry_s = 1.0 if kind is Unavailable else None
        raise kind(error.details() or error.code().name, retry_after_s=retry_s) from None
