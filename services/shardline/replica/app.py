"""The replica's composition root: here alone implementations are picked and joined.

Order of life: sockets first (a taken address is a start error), then models, then the lease says READY. On SIGTERM:
draining in Redis, routers stop choosing it, the queue ends, links close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shardline import __version__
from shardline.coord.codec import Action, Desired
from shardline.coord.connection import Connection
from shardline.coord.members import Membership
from shardline.coord.statistics import StatisticsWriter
from shardline.core.cluster import ReplicaInfo, ReplicaState
from shardline.core.deadline import Deadline
from shardline.core.errors import ModelRejected, ServingError, Unavailable
from shardline.ops import allocator, logs
from shardline.ops.cpu import available_cpus
from shardline.ops.exposition import Endpoint
from shardline.ops.lifecycle import Lifecycle, until
from shardline.ops.metrics import Metrics
from shardline.ops.settings import ReplicaSettings, SettingsError, load
from shardline.pb.shardline.v1 import control_pb2_grpc
from shardline.replica.answers import LinkAnswers
from shardline.replica.devices import DeviceOptions, choose_device, cuda_devices
from shardline.replica.forward import Forwarder
from shardline.replica.host import Host
from shardline.replica.intake import Intake
from shardline.replica.runtime import available_providers, load_cuda_libraries
from shardline.replica.scheduler import Scheduler
from shardline.replica.servicer import ControlServicer
from shardline.replica.stage import parse_stage
from shardline.replica.statistics import model_statistics
from shardline.repository import LoadOptions
from shardline.wire.link import LinkServer
from shardline.wire.statistics import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from shardline.replica.join import Joins
    from shardline.replica.served import Served

    Find = Callable[[], Served | None]

log = logs.get(__name__)

_REPORT_IDLE_S = 0.2
_LEAVE_S = 0.3
"""After the queue is empty: time for answers on their way and for routers to hear of the drain."""


class Replica:
    """One replica process."""

    def __init__(self, settings: ReplicaSettings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._id = f"r-{uuid.uuid4().hex[:10]}"
        device = device_options(settings)
        self._metrics = Metrics("replica", __version__, str(device))
        self._host = Host(
            Path(settings.repository),
            settings.models,
            device,
            self._announce,
            self._metrics,
            LoadOptions(version=settings.version),
            parse_stage(settings.stage) if settings.stage else None,
        )
        self._connection = Connection(settings.redis_url, settings.cluster)
        self._membership: Membership | None = None
        self._desired: dict[str, int] = {}
        self._unwanted: dict[str, bool] = {}
        self._started = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._metrics.gauge("shardline_simulated", lambda: float(device.kind == "simulated"))
        self._metrics.gauge("shardline_redis_connected", lambda: float(bool(self._connection.reachable)))

    async def run(self) -> None:
        """Serve until asked to drain, then end what is queued."""
        settings = self._settings
        link = LinkServer(settings.link_address or f"ipc://{settings.run_dir}/{self._id}.link")
        answers = LinkAnswers(self._id, link.send)
        scheduler = Scheduler(answers, settings.executors, prefetch=settings.prefetch > 0)
        forwarder = None
        if settings.stage:
            forwarder = Forwarder(self._id.encode(), answers.refuse_soon)
            answers.forward_by(forwarder)
        self._intake = Intake(self._host.find, scheduler, answers, self._joins)
        link.listen(self._intake.receive)
        server, control = await self._serve_control()
        exposition = Endpoint(self._metrics, self._healthy)
        if settings.metrics_port >= 0:
            await exposition.start(settings.metrics_host, settings.metrics_port)
        info = self._info(_advertised(link.address, settings), control, exposition.port)
        self._membership = Membership(
            self._connection,
            info,
            beat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
            load_s=settings.report_s,
            on_desired=self._follow,
            statistics=StatisticsWriter(self._connection, info.id, fold=fold),
        )
        try:
            await self._live(self._membership)
            await self._drain(scheduler, answers)
        finally:
            await server.stop(0.2)
            await exposition.stop()
            scheduler.close()
            if forwarder is not None:
                forwarder.close()
            link.close()
            await self._connection.close()
            self._remove_sockets()

    def _joins(self) -> list[Joins]:
        return [served.joins for served in self._host.served if served.joins is not None]

    def _remove_sockets(self) -> None:
        for ending in ("link", "ctl"):
            (self._settings.run_dir / f"{self._id}.{ending}").unlink(missing_ok=True)

    async def _live(self, membership: Membership) -> None:
        """Announce, load, serve until drained; then leave the cluster's view."""
        async with asyncio.TaskGroup() as tasks:
            part = tasks.create_task(membership.run(), name="membership")
            parent = tasks.create_task(self._lifecycle.watch_parent(self._settings.parent_pid), name="parent")
            reports = tasks.create_task(self._report(membership), name="reports")
            loading = tasks.create_task(self._load_all(membership), name="loading")
            await self._lifecycle.draining.wait()
            log.info("replica.draining", reason=self._lifecycle.reason)
            membership.set_state(ReplicaState.DRAINING)
            loading.cancel()
            await self._quiet()
            for task in (part, parent, reports):
                task.cancel()

    async def _load_all(self, membership: Membership) -> None:
        # What was loaded or unloaded by hand is known after the first beat; without Redis the policy counts.
        await membership.announced(2.0)
        await self._host.load_all(self._unwanted)
        if self._settings.require_models and (reason := self._host.missing(self._unwanted)):
            raise ModelRejected(reason)
        allocator.settle()
        self._started.set()
        # Until the end, the drain too: a replica that finishes its queue must not be taken for a dead one.
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        membership.set_state(ReplicaState.READY)
        log.info("replica.ready", replica=self._id, pools=[str(pool) for pool in self._host.pools])

    async def _quiet(self) -> None:
        """Wait until the queues are empty and stay so while routers hear of the drain."""
        deadline = Deadline.after(self._settings.drain_s)
        quiet_since = time.monotonic()

        def quiet() -> bool:
            nonlocal quiet_since
            if any(not served.idle for served in self._host.served):
                quiet_since = time.monotonic()
            return time.monotonic() - quiet_since > _LEAVE_S

        await until(quiet, deadline)

    async def _drain(self, scheduler: Scheduler, answers: LinkAnswers) -> None:
        """Refuse what still comes, so that routers send it elsewhere."""
        self._intake.refusing = Unavailable("replica is draining", retry_after_s=0.1)
        scheduler.pump()
        answers.flush()
        await asyncio.sleep(0.05)

    async def _serve_control(self) -> tuple[grpc.aio.Server, str]:
        settings = self._settings
        address = settings.control_address or f"unix:{settings.run_dir}/{self._id}.ctl"
        server = grpc.aio.server()
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        servicer = ControlServicer(self._host, self._current, self._lifecycle.drain)
        control_pb2_grpc.add_ReplicaControlServicer_to_server(servicer, server)
        port = server.add_insecure_port(address)
        await server.start()
        if address.startswith("unix:"):
            return server, address
        return server, f"{settings.advertise_host or address.rpartition(':')[0]}:{port}"

    def _info(self, link: str, control: str, metrics_port: int) -> ReplicaInfo:
        return ReplicaInfo(
            id=self._id,
            control=control,
            link=link,
            state=ReplicaState.STARTING,
            pools=(),
            device=str(self._host.device),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=time.time(),
            pod=os.environ.get("POD_NAME", ""),
            metrics=f"{self._settings.metrics_host}:{metrics_port}" if metrics_port else "",
        )

    def _current(self) -> ReplicaInfo:
        assert self._membership is not None
        return replace(self._membership.info, pools=self._host.pools)

    def _announce(self) -> None:
        if self._membership is not None:
            self._membership.set_pools(self._host.pools)
        # By pool, not by object: a gauge must not keep the session of a version that was unloaded.
        for pool in self._host.pools:
            labels = (pool.model, str(pool.version))
            find = partial(self._host.find, pool)
            self._metrics.gauge("shardline_queue_rows", partial(_queue_rows, find), *labels)
            self._metrics.gauge("nv_inference_pending_request_count", partial(_queued_calls, find), *labels)
            self._metrics.gauge("shardline_model_ready", partial(_takes_rows, find), *labels)

    def _healthy(self) -> str | None:
        return None if self._started.is_set() else "models are loading"

    async def _follow(self, desired: Mapping[str, Desired]) -> None:
        """Do what was asked of models since we last looked (docs/architecture.md: desired state)."""
        for model, want in desired.items():
            if self._desired.get(model) == want.revision:
                continue
            self._desired[model] = want.revision
            self._unwanted[model] = want.action is Action.UNLOAD
            if not self._started.is_set():
                continue
            try:
                await self._apply(model, want)
            except ServingError as error:
                log.warning("model.desired", model=model, action=want.action, reason=error.message)

    async def _apply(self, model: str, want: Desired) -> None:
        if want.action is Action.UNLOAD:
            await self._host.unload(model, want.versions)
        else:
            _, superseded = await self._host.load(model, want.config.decode())
            if superseded:
                await self._host.unload(model, superseded)

    async def _report(self, membership: Membership) -> None:
        """Publish load while it changes, and statistics with the beat."""
        sequence, snapshot_at = 0, 0.0
        while True:
            sequence += 1
            now = time.monotonic()
            membership.report({served.pool: served.load(now, sequence) for served in self._host.served})
            if now >= snapshot_at:
                snapshot_at = now + self._settings.heartbeat_s
                self._snapshot(membership)
            busy = any(not served.idle for served in self._host.served)
            await asyncio.sleep(membership.load.pause_s if busy else _REPORT_IDLE_S)

    def _snapshot(self, membership: Membership) -> None:
        for served in self._host.served:
            message = model_statistics(served.spec.name, served.spec.version, served.counters, served.pool.stage)
            membership.put_statistics(served.spec.name, served.spec.version, message.SerializeToString())


def _queue_rows(find: Find) -> float:
    served = find()
    return float(served.queue.rows) if served else 0.0


def _queued_calls(find: Find) -> float:
    served = find()
    return float(served.queue.calls) if served else 0.0


def _takes_rows(find: Find) -> float:
    served = find()
    return float(not served.draining) if served else 0.0


def device_options(settings: ReplicaSettings) -> DeviceOptions:
    """The device that the settings ask for. Raises ModelRejected where it is not there."""
    kind = choose_device(settings.device, available_providers(), cuda_devices(), settings.device_index)
    if kind == "cuda":
        load_cuda_libraries()
    return DeviceOptions(
        kind=kind,
        index=settings.device_index,
        threads=settings.threads or available_cpus(),
        memory_limit_bytes=settings.cuda_memory_bytes,
        alpha_s=settings.simulated_alpha_s,
        beta_s=settings.simulated_beta_s,
    )


def _advertised(link: str, settings: ReplicaSettings) -> str:
    """The link's address as others reach it."""
    if not link.startswith("tcp://"):
        return link
    host, _, port = link.removeprefix("tcp://").rpartition(":")
    if host in ("0.0.0.0", "*", "[::]"):  # noqa: S104  compared, not bound
        host = settings.advertise_host or socket.gethostbyname(socket.gethostname())
    return f"tcp://{host}:{port}"


async def _run(settings: ReplicaSettings) -> None:
    lifecycle = Lifecycle()
    with lifecycle.signals():
        await Replica(settings, lifecycle).run()


def main() -> int:
    """Run a replica with settings from the environment; returns the exit status."""
    try:
        settings = load(ReplicaSettings)
    except SettingsError as error:
        print(f"replica: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, "replica")
    if settings.allocator:
        allocator.keep_large_buffers()
    failed = 0
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        _runner()(_run(settings))
    except* (ServingError, OSError) as errors:
        failed = 1
        for failure in errors.exceptions:
            log.error("replica.failed", reason=str(failure))
    return failed


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """uvloop where it is installed: it measured a quarter less CPU per message (docs/performance.md)."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run
    return asyncio.run
