"""How many pods of the new and of the former revisions there should be now. Pure: one stage, numbers in, numbers out.

Rooms are not computed here: the scheduler is asked by making the new pods. Those for which it finds no node are the proof
that there is no room (taints, affinity, other namespaces' pods and GPUs included, which no count of ours would know), and for
each of them an old pod is let go. See docs/adr/0022.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardline.controller.spec import RolloutMode


@dataclass(frozen=True, slots=True)
class StageState:
    """One stage now. wanted: replicas it should have. new_ready, new_homeless: pods of the new revision that are ready / without a
    node. old: replicas that the former revisions' Deployments ask for. old_pods: pods of them that still exist.
    """

    wanted: int
    new_ready: int
    new_homeless: int
    old: int
    old_pods: int


@dataclass(frozen=True, slots=True)
class StageStep:
    """What to ask for now."""

    new: int
    old: int


def steps(mode: RolloutMode, stages: tuple[StageState, ...]) -> tuple[StageStep, ...]:
    """One bounded step for each stage; called again whenever something changes.

    Surge holds all old pods until every stage has all of its new ones ready: revisions are whole, since stages of different
    plans never work together. Old pods never become more during a rollout.
    """
    complete = all(stage.new_ready >= stage.wanted for stage in stages)
    return tuple(_step(mode, stage, complete) for stage in stages)


def _step(mode: RolloutMode, stage: StageState, complete: bool) -> StageStep:
    if complete:
        return StageStep(stage.wanted, 0)
    if mode is RolloutMode.RECREATE:
        # Never more than `wanted` pods: one old pod goes, and when it is gone its successor comes.
        old = min(stage.old, max(0, stage.wanted - 1 - stage.new_ready))
        return StageStep(max(0, stage.wanted - max(stage.old_pods, old)), old)
    if mode is RolloutMode.AUTO and stage.new_homeless:
        return StageStep(stage.wanted, min(stage.old, max(0, stage.wanted - 1 - stage.new_ready)))
    return StageStep(stage.wanted, stage.old)
