"""Control calls to this replica (shardline.v1.ReplicaControl)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shardline.pb.inference import grpc_service_pb2
from shardline.pb.shardline.v1 import control_pb2 as pb
from shardline.pb.shardline.v1 import control_pb2_grpc, replica_pb2
from shardline.replica.statistics import model_statistics
from shardline.wire.descriptions import Description, encode
from shardline.wire.statuses import answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.core.cluster import ReplicaInfo
    from shardline.replica.host import Host
    from shardline.replica.served import Served

Context = Any


class ControlServicer(control_pb2_grpc.ReplicaControlServicer):
    """Answers routers and operators. drain: asks the process to finish and end."""

    def __init__(self, host: Host, info: Callable[[], ReplicaInfo], drain: Callable[[str], None]) -> None:
        self._host = host
        self._info = info
        self._drain = drain

    @answered
    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        info = self._info()
        pools = set(self._host.pools)
        now = time.monotonic()
        return pb.DescribeResponse(
            replica=info.id,
            state=info.state,
            device=info.device,
            models=[encode(describe(served)) for served in self._host.served if served.pool in pools],
            loads=[pool_load(served, now) for served in self._host.served],
        )

    @answered
    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:
        versions, superseded = await self._host.load(request.model, request.config)
        return pb.LoadModelResponse(versions=versions, superseded=superseded)

    @answered
    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:
        await self._host.unload(request.model, request.versions)
        return pb.UnloadModelResponse()

    @answered
    async def Statistics(self, request: pb.StatisticsRequest, context: Context) -> pb.StatisticsResponse:
        return pb.StatisticsResponse(
            models=[
                model_statistics(served.spec.name, served.spec.version, served.counters, served.pool.stage)
                for served in self._host.served
                if request.model in ("", served.spec.name) and request.version in (0, served.spec.version)
            ]
        )

    @answered
    async def Index(self, request: pb.IndexRequest, context: Context) -> pb.IndexResponse:
        response = pb.IndexResponse()
        for (model, version), state in sorted(self._host.states.items()):
            response.models.append(
                grpc_service_pb2.RepositoryIndexResponse.ModelIndex(
                    name=model, version=str(version) if version else "", state=state.state, reason=state.reason
                )
            )
        return response

    @answered
    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        self._drain("asked by a control call")
        return pb.DrainResponse()


def describe(served: Served) -> Description:
    """A served version as routers learn it."""
    role = served.stage
    if role is None:
        return Description(served.pool, served.spec, served.unbatched_because)
    return Description(served.pool, role.whole, served.unbatched_because, role.plan, role.micro_batch_rows, role.graph)


def pool_load(served: Served, now: float) -> replica_pb2.PoolLoad:
    """A served version's load as a message; `now` on the monotonic clock."""
    load = served.load(now, 0)
    return replica_pb2.PoolLoad(
        pool=str(served.pool),
        queue_rows=load.queue_rows,
        running_rows=load.running_rows,
        busy_ms=load.busy_ms,
        alpha_ms=load.alpha_ms,
        beta_ms=load.beta_ms,
    )
