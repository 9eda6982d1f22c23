"""Which model versions this replica serves: loads them beside those in service, warms them, retires them drained."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.batching.latency import LatencyFit
from shardline.batching.policy import Limits
from shardline.core.cluster import PoolKey
from shardline.core.errors import ModelFailed, ModelRejected, NotFound, ServingError
from shardline.core.models import BatchingMode, ModelSpec
from shardline.ops import allocator, logs
from shardline.replica.devices import DeviceOptions
from shardline.replica.join import Joins
from shardline.replica.queue import BatchQueue
from shardline.replica.runtime import Session
from shardline.replica.served import Served
from shardline.replica.stage import StageRole, load_role
from shardline.replica.warmup import warm_up
from shardline.repository import FoundModel, LoadOptions, find_model, load_spec, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from shardline.ops.metrics import Metrics

log = logs.get(__name__)

_RETIRE_POLL_S = 0.01
RETIRE_GRACE_S = 1.0
"""How long a retired version still takes rows that routers sent before they knew."""
RETIRE_AT_MOST_S = 60.0
"""How long a retired version whose rows do not end is kept, where its model sets no deadline of its own."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """What RepositoryIndex says of a version: READY, LOADING, UNLOADING or UNAVAILABLE, and why."""

    state: str
    reason: str = ""


class Host:
    """The models of one replica. `announce` is called whenever the set of pools changed."""

    def __init__(
        self,
        repository: Path,
        allowed: tuple[str, ...],
        device: DeviceOptions,
        announce: Callable[[], None],
        metrics: Metrics,
        options: LoadOptions | None = None,
        stage: tuple[Path, int] | None = None,
    ) -> None:
        """stage: (plan folder, index) where this replica executes one stage of its one model."""
        if stage is not None and len(allowed) != 1:
            raise ModelRejected(f"stage: expected exactly one model in SHARDLINE_MODELS, not {len(allowed)}")
        self._stage = stage
        self._repository = repository
        self._allowed = allowed
        self._device = device
        self._announce = announce
        self._metrics = metrics
        self._options = options or LoadOptions()
        self._loading = asyncio.Lock()
        self._served: dict[PoolKey, Served] = {}
        self._overrides: dict[str, str] = {}
        self.states: dict[tuple[str, int], VersionState] = {}

    def find(self, pool: PoolKey) -> Served | None:
        """The served version of a pool, also while it is being retired; None where there is none."""
        return self._served.get(pool)

    @property
    def served(self) -> Iterable[Served]:
        """All versions in service, those being retired included."""
        return tuple(self._served.values())

    @property
    def pools(self) -> tuple[PoolKey, ...]:
        """Pools that routers may choose this replica for."""
        return tuple(pool for pool, served in self._served.items() if not served.draining)

    @property
    def device(self) -> DeviceOptions:
        """Where sessions run."""
        return self._device

    def found(self) -> tuple[FoundModel, ...]:
        """The repository as it is on disk now. Raises NotFound where it is missing."""
        models = scan(self._repository, options=self._options, allow_empty=True)
        return tuple(model for model in models if self._is_allowed(model.name))

    def _is_allowed(self, model: str) -> bool:
        return not self._allowed or model in self._allowed

    async def load_all(self, unwanted: Mapping[str, bool] | None = None) -> None:
        """Load what the repository and its version policies ask for. A broken model is reported and left out."""
        for model in await asyncio.to_thread(self.found):
            if unwanted and unwanted.get(model.name):
                continue
            for version, reason in model.broken.items():
                self._set_state(model.name, version, "UNAVAILABLE", reason)
            if model.reason and not model.broken:
                self._set_state(model.name, 0, "UNAVAILABLE", model.reason)
            for version in model.versions:
                try:
                    await self._load_version(model.name, version, None)
                except ServingError as error:
                    log.error("model.broken", model=model.name, version=version, reason=error.message)

    def missing(self, unwanted: Mapping[str, bool]) -> str:
        """Why one of the models that this replica was told to serve is not in service, "" where all are."""
        served = {pool.model for pool in self._served}
        for model in self._allowed:
            if model not in served and not unwanted.get(model):
                reasons = [state.reason for (name, _), state in self.states.items() if name == model and state.reason]
                return f"model '{model}': " + ("; ".join(reasons) or "it is not in the repository")
        return ""

    async def load(self, model: str, config: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Load the versions that the policy asks for, beside those in service.

        config: JSON of a ModelConfig in place of the file's, "" for the file's.
        Returns (versions in service that the policy wants, versions in service that it does not).
        Raises NotFound, InvalidRequest or ModelRejected; what served before goes on.
        """
        if not self._is_allowed(model):
            raise NotFound(f"model '{model}': not among the models of this server ({', '.join(self._allowed)})")
        override = config or None
        found = await asyncio.to_thread(
            find_model, self._repository, model, config_override=override, options=self._options
        )
        if found.reason or found.broken:
            reason = found.reason or "; ".join(f"version {v}: {why}" for v, why in found.broken.items())
            for version, why in found.broken.items():
                if self._pool(model, version) not in self._served:
                    self._set_state(model, version, "UNAVAILABLE", why)
            raise ModelRejected(reason)
        for version in found.versions:
            await self._load_version(model, version, override)
        wanted = found.versions
        superseded = tuple(
            sorted(
                {
                    pool.version
                    for pool, served in self._served.items()
                    if pool.model == model and pool.version not in wanted and not served.draining
                }
            )
        )
        return wanted, superseded

    async def _load_version(self, model: str, version: int, override: str | None) -> None:
        async with self._loading:
            before = self._served.get(self._pool(model, version))
            if before is None:
                self._set_state(model, version, "LOADING")
            try:
                served = await asyncio.to_thread(self._build, model, version, override, before)
            except ServingError as error:
                if before is None:
                    self._set_state(model, version, "UNAVAILABLE", error.message)
                raise
            if served is None:
                return
            # Flip: rows that arrive from now on queue at the new session; those queued at the old one still run there.
            self._served[served.pool] = served
            self._set_state(model, version, "READY")
            log.info(
                "model.ready",
                model=model,
                version=version,
                buckets=served.buckets,
                unbatched_because=served.unbatched_because,
            )
            self._announce()
        await asyncio.to_thread(allocator.give_back_free_memory)

    def _pool(self, model: str, version: int) -> PoolKey:
        return PoolKey(model, version, 0 if self._stage is None else self._stage[1])

    def _build(self, model: str, version: int, override: str | None, before: Served | None) -> Served | None:
        """A warm session, or None where the very same model is in service. Runs in a thread."""
        loaded = load_spec(self._repository, model, version, config_override=override, options=self._options)
        spec = loaded.spec
        if before is not None and before.spec.digest == spec.digest and not before.draining:
            return None
        for warning in loaded.warnings:
            log.warning("model.config", model=model, version=version, warning=warning)
        device = _device_for(spec, self._device)
        started = time.monotonic()
        if self._stage is None:
            return _warmed(spec, Session(loaded.model_path, spec, device), started, self._metrics)
        role, stage_spec, path = load_role(*self._stage, spec, (loaded.model_path, *sorted(loaded.external_files)))
        session = Session(path, stage_spec, device)
        return _warmed(stage_spec, session, started, self._metrics, role)

    async def unload(self, model: str, versions: Iterable[int] = ()) -> None:
        """Retire versions: stop announcing them, let their rows end, free them. All where none is named."""
        await asyncio.gather(*(self._retire(served) for served in self._stop_announcing(model, set(versions))))
        await asyncio.to_thread(allocator.give_back_free_memory)

    def _stop_announcing(self, model: str, versions: set[int]) -> list[Served]:
        retiring = [
            served
            for pool, served in self._served.items()
            if pool.model == model and (not versions or pool.version in versions)
        ]
        for served in retiring:
            served.draining = True
            self._set_state(model, served.pool.version, "UNLOADING")
        self._announce()
        return retiring

    async def _retire(self, served: Served) -> None:
        """Rows sent before routers knew still run: their grace is over when none came for a while."""
        quiet_since = time.monotonic()
        deadline = quiet_since + (served.spec.batching.default_timeout_s or RETIRE_AT_MOST_S)
        while time.monotonic() < deadline and time.monotonic() - quiet_since < RETIRE_GRACE_S:
            if not served.idle:
                quiet_since = time.monotonic()
            await asyncio.sleep(_RETIRE_POLL_S)
        if self._served.get(served.pool) is served:  # else it was loaded anew meanwhile, or retired by another call
            del self._served[served.pool]
            self._set_state(served.spec.name, served.spec.version, "UNAVAILABLE", "unloaded")
        log.info("model.unloaded", model=served.spec.name, version=served.spec.version)

    def _set_state(self, model: str, version: int, state: str, reason: str = "") -> None:
        self.states[(model, version)] = VersionState(state, reason)


def _device_for(spec: ModelSpec, device: DeviceOptions) -> DeviceOptions:
    """The replica's device, with what the model's own config asks for."""
    execution = spec.execution
    asked = execution.device.partition(":")[0]
    if asked not in ("auto", device.kind):
        raise ModelRejected(
            f"model '{spec.name}': its config asks for device {execution.device}, this replica runs on {device}"
        )
    return DeviceOptions(
        device.kind,
        device.index,
        execution.threads or device.threads,
        device.memory_limit_bytes,
        device.alpha_s,
        device.beta_s,
    )


def _warmed(
    spec: ModelSpec, session: Session, started: float, metrics: Metrics, role: StageRole | None = None
) -> Served:
    """The session in service, its buckets warm and its batching proved safe."""
    fit = LatencyFit()
    batching = spec.batching
    off = spec.batched and batching.mode is BatchingMode.OFF
    buckets = (1,) if off or not spec.batched else batching.buckets
    try:
        warm = warm_up(spec, session.run, buckets, fit)
    except ModelFailed as error:
        raise ModelRejected(f"model '{spec.name}': warm-up failed: {error.message}") from error
    if warm.skipped:
        log.warning("model.cold", model=spec.name, version=spec.version, reason=warm.skipped)
    because = "shardline.batching is off" if off else warm.unbatched_because
    if because:
        buckets = (1,)
        log.warning("model.unbatched", model=spec.name, version=spec.version, reason=because)
    log.info("model.warm", model=spec.name, version=spec.version, seconds=round(time.monotonic() - started, 3))
    limits = Limits(
        max_rows=buckets[-1],
        delay_s=batching.queue_delay_s,
        predicted_s=fit.predict_s(buckets[-1]),
    )
    return Served(
        pool=PoolKey(spec.name, spec.version, 0 if role is None else role.index),
        stage=role,
        joins=None if role is None else _joins(spec, role),
        spec=spec,
        session=session,
        queue=BatchQueue(batching.queue_rows),
        buckets=buckets,
        limits=limits,
        unbatched_because=because,
        fit=fit,
        counters=metrics.of_batches(spec.name, spec.version),
    )


def _joins(spec: ModelSpec, role: StageRole) -> Joins | None:
    """Where calls wait for their inputs; None where one sender has all of them."""
    if len(set(role.sources.values())) < 2:
        return None
    return Joins(tuple(tensor.name for tensor in spec.inputs), role.needed, spec.batching.queue_rows)
