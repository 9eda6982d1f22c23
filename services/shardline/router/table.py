"""What can be asked of the cluster now: models, versions, and the replicas that are ready for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.cluster import PoolKey
from shardline.core.errors import NotFound, Unavailable
from shardline.router.policy import default_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shardline.core.models import ModelSpec
    from shardline.router.members import Member
    from shardline.wire.descriptions import Description, StageLink


@dataclass(slots=True)
class StagePool:
    """The replicas of one stage of a plan. limit_rows: bound of all their queues together."""

    link: StageLink
    pool_text: str
    ready: list[Member] = field(default_factory=list)
    limit_rows: int = 0


@dataclass(slots=True)
class Serving:
    """A model version that some replica describes.

    ready: members that rows may be sent to; of a split model those of the first stage, none while any stage has none.
    stages: of a split model, one pool each; empty where one replica executes the whole model.
    limit_rows: rows that all stages can hold at once; infinite where the model is not split.
    """

    pool: PoolKey
    pool_text: str
    description: Description
    members: list[Member] = field(default_factory=list)
    ready: list[Member] = field(default_factory=list)
    stages: tuple[StagePool, ...] = ()
    limit_rows: float = float("inf")

    @property
    def spec(self) -> ModelSpec:
        """The model's signature and batching."""
        return self.description.spec

    @property
    def strength(self) -> int:
        """How many replicas are ready; of a split model, those of its weakest stage."""
        return min((len(stage.ready) for stage in self.stages), default=len(self.ready))

    @property
    def largest(self) -> int:
        """Rows of the largest part; a larger request is cut. 0 where requests are never cut."""
        if not self.spec.batched or self.description.unbatched_because:
            return 0
        return self.spec.batching.buckets[-1] if self.spec.batching.buckets else self.spec.batching.max_rows


@dataclass(slots=True)
class Model:
    """A model by name. rows_in_flight: of all versions, bounded by admission."""

    name: str
    versions: dict[int, Serving] = field(default_factory=dict)
    default: Serving | None = None
    rows_in_flight: int = 0


class Table:
    """Rebuilt whenever a member joins, changes, leaves, or its link goes up or down: rare, so built anew each time."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}

    def rebuild(self, members: Iterable[Member]) -> None:
        """Take stock of all members.

        Models and versions that stay keep their objects, which requests in flight refer to; a version that went away
        is left with no member that is ready.
        """
        found = _take_stock(members)
        for model in self.models.values():
            for version, before in list(model.versions.items()):
                if before.pool not in found:
                    before.members, before.ready, before.stages = [], [], ()
                    del model.versions[version]
        for pool, now in found.items():
            model = self.models.setdefault(pool.model, Model(pool.model))
            before = model.versions.setdefault(pool.version, now)
            before.description, before.members, before.ready = now.description, now.members, now.ready
            before.stages, before.limit_rows = now.stages, now.limit_rows
        for name, model in list(self.models.items()):
            if not model.versions:
                del self.models[name]
                continue
            counts = {version: len(serving.ready) for version, serving in model.versions.items()}
            model.default = model.versions[default_version(counts)]

    def resolve(self, name: str, version: int) -> Serving:
        """The version that serves a request. version 0: the default. Raises NotFound or Unavailable."""
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"model '{name[:200]}' is not known; known models: {_known(self.models)}")
        serving = model.versions.get(version) if version else model.default
        if serving is None:
            versions = ", ".join(str(number) for number in sorted(model.versions))
            raise NotFound(f"model '{name}' has no version {version}; served versions: {versions}")
        if not serving.ready:
            raise Unavailable(
                f"model '{name}' version {serving.pool.version} has no replica that is ready; retry in 1 s",
                retry_after_s=1.0,
            )
        return serving


def _take_stock(members: Iterable[Member]) -> dict[PoolKey, Serving]:
    """What the members serve, one entry per model version."""
    found: dict[PoolKey, Serving] = {}
    plans: dict[tuple[PoolKey, str], dict[int, list[tuple[Member, Description]]]] = {}
    for member in members:
        for pool, description in member.descriptions.items():
            if description.plan:
                key = (PoolKey(pool.model, pool.version), description.plan)
                plans.setdefault(key, {}).setdefault(pool.stage, []).append((member, description))
                continue
            serving = found.setdefault(pool, Serving(pool, str(pool), description))
            serving.members.append(member)
            if member.usable:
                serving.ready.append(member)
    for (pool, _), by_stage in plans.items():
        staged = _staged(pool, by_stage)
        known = found.get(pool)
        # Stages of different plans never meet: the plan that more replicas can serve is the one that does.
        if known is None or staged.strength > known.strength:
            found[pool] = staged
    return found


def _staged(pool: PoolKey, by_stage: Mapping[int, Sequence[tuple[Member, Description]]]) -> Serving:
    """A split model under one plan, from the replicas of its stages."""
    description = next(iter(by_stage.values()))[0][1]
    pools = []
    for link in description.stages:
        there = by_stage.get(link.stage, ())
        usable = [(member, own) for member, own in there if member.usable]
        limit = sum(own.spec.batching.queue_rows for _, own in usable)
        text = str(PoolKey(pool.model, pool.version, link.stage))
        pools.append(StagePool(link, text, [member for member, _ in usable], limit))
    whole = all(stage.ready for stage in pools)
    members = list(dict.fromkeys(member for there in by_stage.values() for member, _ in there))
    limit = min(stage.limit_rows for stage in pools)
    return Serving(pool, str(pool), description, members, pools[0].ready if whole else [], tuple(pools), limit)


def _known(models: Mapping[str, Model]) -> str:
    names = sorted(models)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more if names else "none yet"
