"""Which replica processes a local cluster has: some that execute whole models, and some for each stage of a split one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.local.failure import ClusterFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class CutModel:
    """A model version whose stages lie in `folder`. suggested: replicas of each stage that would even out the stages."""

    model: str
    version: int
    folder: Path
    suggested: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A model version that is served in stages. replicas: of each stage; folder: of its plan."""

    model: str
    version: int
    folder: Path
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The replica processes. whole: how many execute whole models; models: which, () for all of the repository."""

    whole: int
    models: tuple[str, ...] = ()
    staged: tuple[StagedModel, ...] = ()

    @property
    def processes(self) -> int:
        """Replica processes in all."""
        return self.whole + sum(sum(model.replicas) for model in self.staged)

    def warm(self, models: Sequence[str]) -> int:
        """How often one of `models` is warm in one of the replicas when all are ready."""
        split = {model.model for model in self.staged}
        return self.whole * sum(name not in split for name in models) + self.processes - self.whole


def lay_out(
    replicas: int,
    cores: int,
    models: Sequence[str],
    limit_to: Sequence[str],
    cut: Sequence[tuple[CutModel, Sequence[int]]],
) -> Layout:
    """Decide how many replicas of what are started.

    replicas: for whole models, where there are any. models: all that are served; limit_to: what replicas are told to serve, ()
    for all of the repository. cut: what is split, with the replicas of each stage that the user told, () where none.
    Raises ClusterFailed where the user told them for another number of stages.
    """
    split = {one.model for one, _ in cut}
    unsplit = tuple(name for name in models if name not in split)
    whole = replicas if unsplit else 0
    spare = cores - whole - sum(len(one.suggested) for one, _ in cut)
    staged = []
    for one, told in cut:
        chosen = _stage_replicas(one, tuple(told), spare)
        spare -= sum(chosen) - len(chosen)
        staged.append(StagedModel(one.model, one.version, one.folder, chosen))
    # What is split must not be executed whole as well, so its name may not come in with "all of the repository".
    return Layout(whole, unsplit if split else tuple(limit_to), tuple(staged))


def _stage_replicas(cut: CutModel, told: tuple[int, ...], spare: int) -> tuple[int, ...]:
    """Those that were told; else as many as even out the stages, where each can have a core; else one of each."""
    stages = len(cut.suggested)
    if told and len(told) != stages:
        numbers = ",".join(map(str, told))
        raise ClusterFailed(
            f"--stage-replicas {cut.model}={numbers} is for {len(told)} stages, the plan has {stages}; write one number for each"
        )
    if told:
        return told
    return cut.suggested if sum(cut.suggested) - stages <= spare else (1,) * stages


def expected_processes(replicas: int, models: Sequence[str], stages: Iterable[tuple[str, int]]) -> int:
    """Replica processes to expect before plans are made. stages: split models and how many stages each may get."""
    split = dict(stages)
    return (replicas if any(name not in split for name in models) else 0) + sum(split.values())
