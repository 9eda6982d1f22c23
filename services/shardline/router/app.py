"""The router's composition root: here alone implementations are picked and joined."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shardline import __version__
from shardline.coord.connection import Connection
from shardline.coord.members import RouterMembership
from shardline.core.cluster import ReplicaState, RouterInfo
from shardline.core.deadline import Deadline
from shardline.core.errors import ServingError
from shardline.ops import allocator, logs
from shardline.ops.exposition import Endpoint
from shardline.ops.lifecycle import Lifecycle, until
from shardline.ops.logs import AccessLog
from shardline.ops.metrics import Metrics
from shardline.ops.settings import RouterSettings, SettingsError, load
from shardline.pb.inference import grpc_service_pb2, grpc_service_pb2_grpc
from shardline.router.accounts import Accounts
from shardline.router.admission import Bounds
from shardline.router.cluster import Cluster
from shardline.router.dispatch import Dispatcher
from shardline.router.repository import RepositoryControl
from shardline.router.servicer import InferenceServicer, stream_handler
from shardline.router.table import Table
from shardline.wire.front import EdgeOptions, Front, Gate, GrpcioFront, NativeFront, choose, infer_handler
from shardline.wire.health import Health
from shardline.wire.link import LinkContext

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    import grpc

log = logs.get(__name__)

_SWEEP_S = 0.02
_SWEEP_IDLE_S = 0.1
_STREAM_IDLE_S = 1.0
_SERVICE = "inference.GRPCInferenceService"
_PROCESS = "shardline.router"
"""Health of this name: whether the router takes calls, with models or without. A cluster must route to one that says why not."""


class Router:
    """One router process."""

    def __init__(self, settings: RouterSettings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._id = f"e-{uuid.uuid4().hex[:10]}"
        self._metrics = Metrics("router", __version__)
        loop = asyncio.get_running_loop()
        self._table = Table()
        bounds = Bounds(
            settings.rows_in_flight,
            settings.bytes_in_flight,
            settings.max_message_bytes,
            settings.retry_ratio,
            settings.default_timeout_s,
        )
        accounts = Accounts(self._metrics, AccessLog(settings.access_log_per_s), enabled=settings.accounting)
        self._dispatcher = Dispatcher(self._table, bounds, accounts, loop.call_soon, loop.call_later, self._id.encode())
        self._connection = Connection(settings.redis_url, settings.cluster)
        self._context = LinkContext(self._id.encode())
        self._cluster = Cluster(self._connection, self._context, self._table, self._dispatcher)
        repository = RepositoryControl(self._cluster, self._connection)
        self._servicer = InferenceServicer(self._table, self._dispatcher, repository)
        self._health = Health()
        self._front, why = self._make_front()
        self._why = why
        self._named: set[str] = set()
        self._health_wanted = asyncio.Event()
        self._health_wanted.set()  # the health service begins with SERVING, before any model is known
        self._cluster.on_change = self._health_wanted.set

    def _make_front(self) -> tuple[Front, str]:
        settings = self._settings
        options = EdgeOptions(
            f"{settings.host}:{settings.port}",
            settings.max_message_bytes,
            settings.reuse_port,
            settings.max_connection_age_s,
            settings.max_connection_age_grace_s,
            settings.keepalive_s,
            settings.max_concurrent_streams,
        )
        name, why = choose(settings.front, options)
        if name == "native":
            return NativeFront(options, self._add_servicers, self._dispatcher), why
        return GrpcioFront(options, self._add_servicers), why

    def _add_servicers(self, server: grpc.aio.Server, gate: Gate) -> None:
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._servicer, server)
        handlers = {
            "ModelInfer": infer_handler(self._dispatcher, gate),
            "ModelStreamInfer": stream_handler(self._servicer),
        }
        server.add_registered_method_handlers(_SERVICE, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=_reflection_pool())

    async def run(self) -> None:
        """Serve until asked to drain, then end what is in flight."""
        settings = self._settings
        endpoint = Endpoint(self._metrics, lambda: None if self._table.models else "no model is served yet")
        await self._front.start()
        await endpoint.start(settings.metrics_host, settings.metrics_port)
        self._health.set(_PROCESS, True)
        address = f"{settings.host}:{self._front.port}"
        log.info("router.listening", address=address, front=self._front.name, why=self._why)
        membership = RouterMembership(self._connection, self._info(address, endpoint.port))
        self._gauges()
        allocator.settle()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._cluster.run(), name="cluster"),
                    tasks.create_task(membership.run(), name="membership"),
                    tasks.create_task(self._sweep(), name="sweep"),
                    tasks.create_task(self._tell_health(), name="health"),
                    tasks.create_task(self._lifecycle.watch_parent(settings.parent_pid), name="parent"),
                ]
                await self._lifecycle.draining.wait()
                log.info("router.draining", reason=self._lifecycle.reason)
                membership.set_state(ReplicaState.DRAINING)
                await self._drain()
                for task in running:
                    task.cancel()
        finally:
            await endpoint.stop()
            await self._cluster.close()
            self._context.close()
            await self._connection.close()

    async def _drain(self) -> None:
        """Not ready first, so that load balancers stop choosing us; then no new connections; then the rest ends."""
        self._servicer.draining = True
        self._health.drain()
        await asyncio.sleep(self._settings.linger_s)
        self._health.end()
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(self._end_idle_streams(), name="streams")
            await self._front.stop(self._settings.drain_s)
            ending.cancel()
        await until(lambda: self._dispatcher.requests_in_flight == 0, Deadline.after(self._settings.drain_s))

    async def _end_idle_streams(self) -> None:
        """Streams that are in use end with their clients, or with the grace; nobody waits for the others."""
        while True:
            self._servicer.end_idle_streams(_STREAM_IDLE_S)
            await asyncio.sleep(_STREAM_IDLE_S / 4)

    async def _sweep(self) -> None:
        while True:
            self._dispatcher.sweep(time.monotonic())
            await asyncio.sleep(_SWEEP_S if self._dispatcher.requests_in_flight else _SWEEP_IDLE_S)

    async def _tell_health(self) -> None:
        """grpc.health.v1 by model: SERVING while a replica is ready for it; "" and the service while any model is."""
        while True:
            await self._health_wanted.wait()
            self._health_wanted.clear()
            ready = {name: bool(model.default and model.default.ready) for name, model in self._table.models.items()}
            states = {name: ready.get(name, False) for name in self._named | ready.keys()}
            states[""] = states[_SERVICE] = any(ready.values())
            self._gauges_of(ready.keys() - self._named)
            self._named |= ready.keys()
            for name, serving in states.items():
                self._health.set(name, serving)

    def _gauges(self) -> None:
        self._metrics.gauge("shardline_bytes_in_flight", lambda: float(self._dispatcher.bytes_in_flight))
        for state in ("up", "down"):
            self._metrics.gauge("shardline_links", partial(self._links, state == "up"), state)
        self._metrics.gauge("shardline_redis_connected", lambda: float(bool(self._connection.reachable)))

    def _gauges_of(self, models: Iterable[str]) -> None:
        for name in models:
            self._metrics.gauge("shardline_ready_replicas", partial(self._ready_replicas, name), name)
            self._metrics.gauge("shardline_rows_in_flight", partial(self._rows_in_flight, name), name)

    def _rows_in_flight(self, name: str) -> float:
        model = self._table.models.get(name)
        return float(model.rows_in_flight) if model else 0.0

    def _ready_replicas(self, name: str) -> float:
        model = self._table.models.get(name)
        return float(model.default.strength) if model and model.default else 0.0

    def _links(self, up: bool) -> float:
        return float(sum(member.link.up is up for member in self._cluster.members.values()))

    def _info(self, address: str, metrics_port: int) -> RouterInfo:
        return RouterInfo(
            id=self._id,
            address=address,
            state=ReplicaState.READY,
            front=self._front.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=time.time(),
            pod=os.environ.get("POD_NAME", ""),
            metrics=f"{self._settings.metrics_host}:{metrics_port}" if metrics_port else "",
        )


def _reflection_pool() -> object:
    """Our own descriptors, and those of the health and reflection services, in one pool."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()

    def add(descriptor: object) -> None:
        for dependency in descriptor.dependencies:  # type: ignore[attr-defined]
            add(dependency)
        message = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(message)  # type: ignore[attr-defined]
        pool.Add(message)

    add(grpc_service_pb2.DESCRIPTOR)
    add(health_pb2.DESCRIPTOR)
    from grpc_reflection.v1alpha import reflection_pb2

    add(reflection_pb2.DESCRIPTOR)
    return pool


async def _run(settings: RouterSettings) -> None:
    lifecycle = Lifecycle()
    with lifecycle.signals():
        await Router(settings, lifecycle).run()


def main() -> int:
    """Run a router with settings from the environment; returns the exit status."""
    try:
        settings = load(RouterSettings)
    except SettingsError as error:
        print(f"router: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, "router")
    if settings.allocator:
        allocator.keep_large_buffers()
    random.seed()
    failed = 0
    try:
        _runner()(_run(settings))
    except* (ServingError, OSError, ValueError) as errors:
        failed = 1
        for failure in errors.exceptions:
            log.error("router.failed", reason=str(failure))
    return failed


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """uvloop where it is installed: it measured a quarter less CPU per message (docs/performance.md)."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run
    return asyncio.run
