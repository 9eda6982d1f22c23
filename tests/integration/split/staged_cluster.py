"""A cluster whose stages are started one by one, so that a test says what each of them does, and which one dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from shardline.partition.extract import extract
from shardline.partition.planning import PlanRequest, find_model, make_plan
from shardline.wire.client import InferenceClient
from tests.cluster_process import ClusterProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from shardline.partition.plan import Plan
    from shardline.wire.client import Answer
    from tests.cluster_process import Member


@dataclass(frozen=True, slots=True)
class Split:
    """A model in stages. replicas: of each stage. settings: of all replicas of a stage, by its index."""

    model: str
    folder: Path
    replicas: tuple[int, ...]
    settings: Mapping[int, Mapping[str, str]] = field(default_factory=dict)


def cut(repository: Path, model: str, stages: int, folder: Path, **request: Any) -> Plan:
    """Plan a model of the repository by estimate, and write its stages."""
    file = find_model(repository / model)
    plan = make_plan(file, PlanRequest(stages=stages, estimate=True, **request))
    assert len(plan.stages) == stages
    extract(plan, file, folder)
    return plan


@dataclass
class StagedCluster(ClusterProcess):
    """ClusterProcess with the stages of `splits` besides its replicas of whole models."""

    splits: Sequence[Split] = ()
    stages: dict[tuple[str, int], list[Member]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            for split in self.splits:
                for stage, count in enumerate(split.replicas):
                    for _ in range(count):
                        self.start_stage(split, stage)
        except BaseException:
            self.stop()
            raise
        return super().__enter__()

    def wanted(self, model: str) -> int:
        """Of a split model, the replicas of its weakest stage; of a whole one, one at least."""
        living = {member.pid for member in self.role("replica")}
        stages = [members for (name, _), members in self.stages.items() if name == model]
        return min((sum(member.pid in living for member in members) for members in stages), default=1)

    def start_stage(self, split: Split, stage: int, **others: str) -> Member:
        """Start one more replica of a stage; does not wait."""
        settings = {**split.settings.get(stage, {}), **others}
        member = self.start("replica", models=split.model, stage=f"{split.folder}#{stage}", **settings)
        self.stages.setdefault((split.model, stage), []).append(member)
        return member


def ask(url: str, model: str, feeds: Mapping[str, np.ndarray[Any, Any]], **options: Any) -> Answer:
    """One request; its answer with the receipt. Raises CallFailed."""

    async def call() -> Answer:
        async with InferenceClient(url, timeout_s=30) as client:
            return await client.infer(model, feeds, **options)

    return asyncio.run(call())
