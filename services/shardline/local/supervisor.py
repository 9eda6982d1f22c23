"""Starts a cluster on this machine, watches it, replaces what ends, and ends it in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardline.local import environment, ports, redis, statefile
from shardline.local.backoff import GiveUp, RestartPolicy
from shardline.local.child import Child, ChildSpec, describe_status
from shardline.local.failure import ClusterFailed
from shardline.local.readiness import until_served
from shardline.local.staging import Bench, stage_models
from shardline.local.sweeping import Sweeping
from shardline.ops.cpu import available_cpus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from shardline.local.layout import Layout
    from shardline.local.options import ClusterOptions
    from shardline.local.reporter import Reporter

_PRIVATE_REDIS_S = 10.0
_GIVEN_REDIS_S = 3.0
_REDIS_STOP_S = 3.0
_STOP_MARGIN_S = 5.0
"""Time for what follows a process's own drain."""
_KEPT_LIVES = 16
_STOP_ORDER = ("router", "replica", redis.REDIS)
"""Routers first: they answer what is in flight, for which they need replicas; those need no Redis to finish."""


class Supervisor:
    """One cluster: `run()` starts it, serves until `stop()`, and leaves nothing behind.

    models: names to wait for; what preflight found to be servable.
    """

    def __init__(self, options: ClusterOptions, models: tuple[str, ...], reporter: Reporter) -> None:
        self._options = options
        self._models = models
        self._reporter = reporter
        self._policy = RestartPolicy()
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()
        self._started = False
        self._failure: ClusterFailed | None = None

    def stop(self) -> None:
        """Ask for an orderly end; asked a second time, end everything at once."""
        if self._stopping.is_set():
            _signal_all(self._children.values(), signal.SIGKILL)
        self._stopping.set()

    async def run(self) -> None:
        """Raises ClusterFailed where the cluster cannot start; what was started has ended by then."""
        settings = self._options.settings
        for port in environment.metrics_ports(self._options):
            ports.check_free(settings.metrics_host, port, "metrics", "--metrics-port")
        with ports.hold(settings.host, settings.port, "gRPC", "--port") as held:
            settings = settings.model_copy(update={"port": held.getsockname()[1]})
            options = replace(self._options, settings=settings)
            async with _workplace() as (folder, sweeping):
                try:
                    await self._serve(options, folder, sweeping)
                finally:
                    # Only after a defect of our own is anything left here.
                    _signal_all(self._children.values(), signal.SIGKILL)
        if self._failure is not None:
            raise self._failure

    async def _serve(self, options: ClusterOptions, folder: Path, sweeping: Sweeping) -> None:
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self._start(group, options, folder, sweeping))
            await self._stopping.wait()
            starting.cancel()
            await self._end_in_order()

    async def _start(self, group: asyncio.TaskGroup, options: ClusterOptions, folder: Path, sweeping: Sweeping) -> None:
        def keep(spec: ChildSpec) -> None:
            group.create_task(self._keep(spec, sweeping))

        try:
            redis_url = options.settings.redis_url
            limit_s = _GIVEN_REDIS_S if redis_url else _PRIVATE_REDIS_S
            if not redis_url:
                spec, redis_url = redis.private_redis(folder)
                keep(spec)
            await redis.until_answers(redis_url, limit_s)
            cores = available_cpus()
            layout = await stage_models(options, self._models, cores, Bench(self._reporter, sweeping, folder))
            for spec in environment.children(options, layout, redis_url, folder, cores):
                keep(spec)
            self._record(options, layout, redis_url, sweeping)
            answers = await until_served(options, layout, self._models, redis_url, self._reporter)
        except ClusterFailed as failure:
            self._fail(failure)
            return
        self._started = True
        self._reporter.ready(options.settings, answers)

    def _record(self, options: ClusterOptions, layout: Layout, redis_url: str, sweeping: Sweeping) -> None:
        """Let `shardline status` find this cluster; it runs as well without."""
        try:
            sweeping.remove(statefile.write(_running(options, layout, redis_url)))
        except OSError as error:
            self._reporter.notice(f"`shardline status` will need --redis for this cluster: {error}")

    async def _keep(self, spec: ChildSpec, sweeping: Sweeping) -> None:
        """Start a child, and start it again whenever it ends, until the cluster stops."""
        lives_s: deque[float] = deque(maxlen=_KEPT_LIVES)
        while not self._stopping.is_set():
            try:
                child = await Child.start(spec, self._reporter.line)
            except OSError as error:
                self._fail(ClusterFailed(f"cannot run {spec.argv[0]}: {error.strerror or error}"))
                return
            self._children[spec.name] = child
            sweeping.watch(child.pid)
            if self._stopping.is_set():
                child.signal(signal.SIGTERM)
            status = await child.wait()
            sweeping.forget(child.pid)
            lives_s.append(child.life_s())
            if not self._stopping.is_set():
                await self._after_end(child, status, tuple(lives_s))

    async def _after_end(self, child: Child, status: int, lives_s: tuple[float, ...]) -> None:
        """Wait as long as the policy says, or give the cluster up."""
        how = f"{child.spec.name} ended ({describe_status(status)}): {child.last_words()}"
        decision = self._policy.decide(lives_s, started=self._started)
        if isinstance(decision, GiveUp):
            self._fail(ClusterFailed(f"{how} (tried {decision.quick_failures} times)"))
            return
        after = f" in {decision.delay_s:.2g} s" if decision.delay_s else ""
        self._reporter.notice(f"{how}; starting it again{after}")
        try:
            async with asyncio.timeout(decision.delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _fail(self, failure: ClusterFailed) -> None:
        """End the cluster for this reason; the first one counts, the others follow from it."""
        if self._failure is None and not self._stopping.is_set():
            self._failure = failure
        self._stopping.set()

    async def _end_in_order(self) -> None:
        for role in _STOP_ORDER:
            children = [child for child in self._children.values() if child.spec.role == role]
            _signal_all(children, signal.SIGTERM)
            limit_s = _REDIS_STOP_S if role == redis.REDIS else self._options.settings.drain_s + _STOP_MARGIN_S
            try:
                async with asyncio.timeout(limit_s):
                    for child in children:
                        await child.gone.wait()
            except TimeoutError:
                self._reporter.notice(f"a {role} did not end within {limit_s:.0f} s and was killed")
                _signal_all(children, signal.SIGKILL)


@asynccontextmanager
async def _workplace() -> AsyncIterator[tuple[Path, Sweeping]]:
    """A folder for sockets and a sweeper that removes it if we cannot; short, since socket paths end at 107 bytes."""
    sweeping = await Sweeping.start()
    folder = Path(tempfile.mkdtemp(prefix="shardline-", dir=_short_temporary_folder()))
    sweeping.remove(folder)
    try:
        yield folder, sweeping
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        await sweeping.finish()


def _short_temporary_folder() -> str:
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > 40 and os.access("/tmp", os.W_OK) else usual  # noqa: S108 (mkdtemp makes it private)


def _running(options: ClusterOptions, layout: Layout, redis_url: str) -> statefile.RunningCluster:
    return statefile.RunningCluster(
        pid=os.getpid(),
        endpoint=options.endpoint,
        redis=redis_url,
        cluster=options.settings.cluster,
        repository=options.settings.repository,
        started_at=time.time(),
        stages={f"{model.model}:{model.version}": len(model.replicas) for model in layout.staged},
    )


def _signal_all(children: Iterable[Child], number: signal.Signals) -> None:
    for child in children:
        child.signal(number)
