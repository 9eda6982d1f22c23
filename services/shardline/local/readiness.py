"""When a local cluster is ready: every replica announced itself and every model answered one real request."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from shardline.coord.connection import Connection
from shardline.coord.errors import RedisAway
from shardline.coord.status import cluster_view
from shardline.core.cluster import ReplicaState
from shardline.local.failure import ClusterFailed
from shardline.local.reporter import FirstAnswer
from shardline.local.samples import REFUSED, answer_to_sample
from shardline.wire.client import CallFailed, InferenceClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from shardline.core.cluster import ReplicaInfo
    from shardline.local.layout import Layout
    from shardline.local.options import ClusterOptions
    from shardline.local.reporter import Reporter
    from shardline.wire.client import ModelEntry

_POLL_S = 0.1
_CALL_S = 5.0
_SHOWN_VALUES = 3
NO_SAMPLE = "none to made-up input"
_OUT_OF_MEMORY = "bad_alloc"
"""What ONNX Runtime says where the system gives it no memory."""
_NOT_YET = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND"})
"""Statuses of a cluster that has not come up yet: routers may not listen, replicas may not have announced a model."""


async def until_served(
    options: ClusterOptions, layout: Layout, models: tuple[str, ...], redis_url: str, reporter: Reporter
) -> tuple[FirstAnswer, ...]:
    """Wait until the routers are ready, all replicas are, and each model has answered a request.

    Raises ClusterFailed after `start_s`, saying what is still missing, and at once where a model cannot be served.
    """
    waiting = _Waiting(options, layout, models, redis_url, reporter)
    try:
        async with asyncio.timeout(options.settings.start_s):
            return await waiting.run()
    except TimeoutError as error:
        raise ClusterFailed(
            f"not ready after {options.settings.start_s:.0f} s: {waiting.missing}; --start-timeout gives it longer"
        ) from error


class _Waiting:
    """The steps of the wait; `missing` says what the present step waits for."""

    def __init__(
        self, options: ClusterOptions, layout: Layout, models: tuple[str, ...], redis_url: str, reporter: Reporter
    ) -> None:
        self.missing = "nothing was tried"
        self._options = options
        self._layout = layout
        self._models = models
        self._redis_url = redis_url
        self._reporter = reporter

    async def run(self) -> tuple[FirstAnswer, ...]:
        settings = self._options.settings
        async with (
            InferenceClient(self._options.endpoint, timeout_s=_CALL_S) as client,
            Connection(self._redis_url, settings.cluster) as connection,
        ):
            replicas = await self._until_replicas_ready(client, connection)
            await self._until_router_ready(client)
            for model in self._models:
                await self._until_model_ready(client, model)
            return await self._first_requests(client, replicas)

    async def _until_replicas_ready(self, client: InferenceClient, connection: Connection) -> tuple[ReplicaInfo, ...]:
        wanted = self._layout.processes
        while True:
            replicas = await _replicas(connection)
            ready = tuple(info for info in replicas if info.state is ReplicaState.READY)
            warm, to_warm = warm_models(replicas, self._models), self._layout.warm(self._models)
            self._reporter.progress("models warm", warm, to_warm)
            self._reporter.progress("replicas ready", len(ready), wanted)
            self.missing = f"{len(ready)} of {wanted} replicas are ready"
            if len(ready) >= wanted:
                return ready
            await self._check_models(client)
            await asyncio.sleep(_POLL_S)

    async def _first_requests(
        self, client: InferenceClient, replicas: tuple[ReplicaInfo, ...]
    ) -> tuple[FirstAnswer, ...]:
        answers: list[FirstAnswer] = []
        for model in self._models:
            self._reporter.progress("models answered", len(answers), len(self._models))
            answers.append(await self._first_request(client, model, replicas))
        self._reporter.progress("models answered", len(answers), len(self._models))
        return tuple(answers)

    async def _until_router_ready(self, client: InferenceClient) -> None:
        self.missing = f"no router is ready at {self._options.endpoint}"
        while not await _is(client.server_ready(_CALL_S)):  # noqa: ASYNC110  only the router knows
            await asyncio.sleep(_POLL_S)

    async def _until_model_ready(self, client: InferenceClient, model: str) -> None:
        self.missing = f"model {model} is not ready"
        while not await _is(client.model_ready(model, timeout_s=_CALL_S)):
            await self._check_models(client)
            await asyncio.sleep(_POLL_S)

    async def _check_models(self, client: InferenceClient) -> None:
        """Raises ClusterFailed where a replica says that it cannot serve a model: waiting would not help."""
        try:
            index = await client.repository_index()
        except CallFailed as failure:
            if failure.status not in _NOT_YET:
                raise ClusterFailed(f"the repository's index failed: {failure}") from failure
            return
        broken = broken_models(index, self._models)
        if broken:
            bound = bool(self._options.settings.replica_memory_bytes)
            raise ClusterFailed("; ".join(explain_broken(name, reason, bound=bound) for name, reason in broken.items()))

    async def _first_request(
        self, client: InferenceClient, model: str, replicas: tuple[ReplicaInfo, ...]
    ) -> FirstAnswer:
        self.missing = f"model {model} has not answered its first request"
        try:
            answer = await answer_to_sample(client, model, timeout_s=self._options.settings.start_s)
        except CallFailed as failure:
            if failure.status in REFUSED:  # it is served; what it takes, only its user knows
                self._reporter.notice(f"{model} takes no input that we can make up: {failure.message}")
                return first_answer(model, await self._version(client, model), {}, replicas, self._options.endpoint)
            raise ClusterFailed(f"the first request to model {model} failed: {failure}") from failure
        return first_answer(model, answer.version, answer, replicas, self._options.endpoint, answer.latency_s)

    @staticmethod
    async def _version(client: InferenceClient, model: str) -> str:
        return (await client.model_metadata(model)).versions[-1]


def broken_models(index: Iterable[ModelEntry], wanted: Iterable[str]) -> dict[str, str]:
    """Wanted models of which no version is ready or on its way, and why: model → reason."""
    reasons: dict[str, str] = {}
    hopeful = set()
    for entry in index:
        if entry.state == "UNAVAILABLE" and entry.reason:
            reasons.setdefault(entry.name, entry.reason)
        else:
            hopeful.add(entry.name)
    return {name: reasons[name] for name in wanted if name in reasons and name not in hopeful}


def explain_broken(model: str, reason: str, *, bound: bool) -> str:
    """Why a model is not served, with what to do where that is known. bound: whether replicas are bound in memory."""
    if bound and _OUT_OF_MEMORY in reason:
        return f"model {model} does not fit into --replica-memory ({reason}); --stages {model}=auto splits it so that it does"
    return f"model {model}: {reason}"


def warm_models(replicas: Iterable[ReplicaInfo], models: Iterable[str]) -> int:
    """How often one of the models is warm in one of the replicas."""
    wanted = frozenset(models)
    return sum(len(wanted & {pool.model for pool in replica.pools}) for replica in replicas)


def first_answer(
    model: str,
    version: str,
    answer: Mapping[str, np.ndarray[Any, Any]],
    replicas: tuple[ReplicaInfo, ...],
    endpoint: str,
    latency_s: float | None = None,
) -> FirstAnswer:
    """A row of the table that is shown when the cluster serves. answer: empty, and no latency, where no input could be made up."""
    serving = [replica for replica in replicas if any(pool.model == model for pool in replica.pools)]
    pools = [pool for replica in serving for pool in replica.pools if pool.model == model]
    counts = Counter(pool.stage for pool in pools if str(pool.version) == version)
    return FirstAnswer(
        model=model,
        version=version,
        replicas=tuple(counts[stage] for stage in sorted(counts)),
        device=", ".join(sorted({replica.device for replica in serving})),
        endpoint=endpoint,
        answer=", ".join(f"{name} {describe(array)}" for name, array in answer.items()) or NO_SAMPLE,
        latency_s=latency_s,
    )


def describe(array: np.ndarray[Any, Any]) -> str:
    """An output in a few words: its shape and first values.

    >>> describe(np.array([[1.5, 2.0, 3.0, 4.0]]))
    '[1×4] 1.5, 2, 3 …'
    """
    shape = "×".join(map(str, array.shape)) or "scalar"
    shown = ", ".join(_value(value) for value in array.flat[:_SHOWN_VALUES].tolist())
    return f"[{shape}] {shown}{' …' if array.size > _SHOWN_VALUES else ''}"


def _value(value: object) -> str:
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace"))
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)


async def _is(call: Any) -> bool:
    try:
        return bool(await call)
    except CallFailed as failure:
        if failure.status in _NOT_YET:
            return False
        raise ClusterFailed(f"the router refused: {failure}") from failure


async def _replicas(connection: Connection) -> tuple[ReplicaInfo, ...]:
    """Replicas as Redis knows them; none while it is away."""
    try:
        view = await cluster_view(connection)
    except RedisAway:
        return ()
    return tuple(seen.info for seen in view.replicas.values())
