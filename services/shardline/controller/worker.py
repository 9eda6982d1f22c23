"""One worker for each Model: looks, plans, acts; wakes when something of its Model changed. Failures back off, others go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from shardline.controller.actions import Action, Apply, Delete, Scale, SetStatus, StorePlan, Tell
from shardline.controller.api import DEPLOYMENT, EVENT, JOB, KINDS, MODEL, Api, ApiError
from shardline.controller.bundle import Bundle, digest_of
from shardline.controller.contract import FIELD_MANAGER
from shardline.controller.plan import plan
from shardline.controller.planjob import config_map
from shardline.controller.reflect import pause_s
from shardline.coord.errors import RedisAway
from shardline.ops import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from shardline.controller.observed import Observed
    from shardline.controller.spec import Manifest, ModelObject
    from shardline.coord.facts import StoredPlan

log = logs.get(__name__)

SETTLE_S = 0.05
"""Changes come in bursts; one look for all of them."""


class View(Protocol):
    """Where a worker looks."""

    def model(self, name: str) -> ModelObject | None:
        """The Model as it is now, None when it is gone."""

    def observed(self, model: ModelObject) -> Observed:
        """All that there is of it."""

    def learn(self, item: Manifest) -> None:
        """Take an object that the API server just answered with."""


class Plans(Protocol):
    """Where planning jobs leave plans."""

    async def plan(self, model: str, version: int) -> StoredPlan | None:
        """The plan of a model version, None if there is none. Raises RedisAway."""


@dataclass(slots=True)
class Worker:
    """Looks after one Model until it is gone. wake(): something changed."""

    name: str
    api: Api
    view: View
    plans: Plans
    defaults: Mapping[str, Any]
    resync_s: float

    def __post_init__(self) -> None:
        self._dirty = asyncio.Event()
        self._dirty.set()

    _dirty: asyncio.Event = None  # type: ignore[assignment]

    def wake(self) -> None:
        """Look again soon."""
        self._dirty.set()

    async def run(self) -> None:
        """Until the Model is gone."""
        failures = 0
        while True:
            await self._until_dirty()
            model = self.view.model(self.name)
            if model is None:
                return
            try:
                await self._once(model)
                failures = 0
            except (ApiError, RedisAway) as error:
                level = 30 if failures in (0, 5) else 10
                log.log(level, "worker.retried", model=self.name, error=str(error), failures=failures)
                failures = await self._back_off(failures)
            except Exception as error:
                log.error("worker.failed", model=self.name, error=repr(error), exc_info=error)
                failures = await self._back_off(failures)

    async def _back_off(self, failures: int) -> int:
        await asyncio.sleep(pause_s(failures))
        self.wake()
        return failures + 1

    async def _until_dirty(self) -> None:
        try:
            async with asyncio.timeout(self.resync_s):
                await self._dirty.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)
        self._dirty.clear()

    async def _once(self, model: ModelObject) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for action in plan(self.defaults, model, self.view.observed(model), now):
            log.debug("worker.acts", model=self.name, action=type(action).__name__)
            await self._carry_out(model, action)

    async def _carry_out(self, model: ModelObject, action: Action) -> None:
        match action:
            case Apply(manifest):
                self.view.learn(await self.api.apply(manifest))
            case Scale(name, replicas):
                self.view.learn(await self.api.merge(DEPLOYMENT, name, {"spec": {"replicas": replicas}}))
            case Delete(kind, name):
                await self.api.delete(KINDS[kind], name)
            case StorePlan():
                await self._store_plan(model, action)
            case SetStatus(status):
                await self._set_status(model, status)
            case Tell():
                await self._tell(model, action)

    async def _store_plan(self, model: ModelObject, plan: StorePlan) -> None:
        found = await self.plans.plan(model.model, plan.version)
        if found is None or digest_of(found.body) != plan.digest:
            log.warning("worker.plan_lost", model=model.name, job=plan.job)
            await self.api.delete(JOB, plan.job)
            return
        bundle = Bundle.unpack(found.body)
        manifest = config_map(self.defaults, model, plan.key, plan.version, bundle, found.body)
        self.view.learn(await self.api.apply(manifest))

    async def _set_status(self, model: ModelObject, status: Manifest) -> None:
        missing = {name: None for name in model.status if name not in status}
        try:
            self.view.learn(await self.api.merge(MODEL, model.name, {"status": {**status, **missing}}, "status"))
        except ApiError as error:
            if error.status != 404:  # it has just been let go
                raise

    async def _tell(self, model: ModelObject, event: Tell) -> None:
        """An event on the object. Best effort: nothing waits for it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = {
            "apiVersion": "v1",
            "kind": EVENT.name,
            "metadata": {"generateName": f"{model.name}.", "namespace": model.namespace},
            "involvedObject": {
                "apiVersion": MODEL.api_version,
                "kind": MODEL.name,
                "name": model.name,
                "namespace": model.namespace,
                "uid": model.uid,
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        log.log(30 if event.warning else 20, "model.told", model=model.name, reason=event.reason, message=event.message)
        try:
            await self.api.create(EVENT, manifest)
        except ApiError as error:
            log.info("worker.event_lost", model=model.name, error=str(error))


class Workers:
    """A worker for each Model. Must run inside `async with`."""

    def __init__(self, make: Callable[[str], Worker]) -> None:
        self._make = make
        self._workers: dict[str, Worker] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)

    def wake(self, name: str) -> None:
        """Look at a Model soon; starts its worker if it has none."""
        worker = self._workers.get(name)
        if worker is None:
            worker = self._workers[name] = self._make(name)
            self._tasks.create_task(self._run(worker), name=f"controller.worker.{name}")
        worker.wake()

    async def _run(self, worker: Worker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.name]
