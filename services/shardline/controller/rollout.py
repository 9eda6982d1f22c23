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
    """One stage now.

    wanted: replicas it should have, 0 of a stage that only former revisions have. Pods of the new revision: new_ready, new_homeless
    (without a node, which they would get if others left theirs), new_loading (with a node and not ready). old: replicas that
    the former revisions' Deployments ask for. old_pods: pods of them that still exist.
    """

    wanted: int
    new_ready: int
    new_homeless: int
    old: int
    old_pods: int
    new_loading: int = 0


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
    if all(stage.new_ready >= stage.wanted for stage in stages):
        return tuple(StageStep(stage.wanted, 0) for stage in stages)
    if mode is RolloutMode.RECREATE:
        return tuple(_recreate(stage, old) for stage, old in zip(stages, _spared(stages), strict=True))
    if mode is RolloutMode.AUTO and any(stage.new_homeless for stage in stages):
        return _without_room(stages)
    return tuple(StageStep(stage.wanted, stage.old) for stage in stages)


def _recreate(stage: StageState, old: int) -> StageStep:
    """Never more than `wanted` pods: one old pod goes, and when it is gone its successor comes."""
    return StageStep(max(0, stage.wanted - max(stage.old_pods, old)), old)


def _without_room(stages: tuple[StageState, ...]) -> tuple[StageStep, ...]:
    """Old pods of any stage may hold what a new pod of any other waits for.

    The last old pod of a stage stays until the new revision has a pod of every stage, or nothing else is left that could make room.
    """
    whole = all(stage.new_ready or not stage.wanted for stage in stages)
    spare = any(stage.old_pods > 1 for stage in stages)
    least = 1 if spare and not whole else 0
    left = [min(stage.old, max(least, old)) for stage, old in zip(stages, _spared(stages), strict=True)]
    moving = any(stage.new_loading or stage.old_pods > old for stage, old in zip(stages, left, strict=True))
    if not moving and any(left):  # more are wanted than there were: nobody would ever make room
        left[left.index(max(left))] -= 1
    return tuple(StageStep(stage.wanted, old) for stage, old in zip(stages, left, strict=True))


def _spared(stages: tuple[StageState, ...]) -> list[int]:
    """How many old pods stay where each new one takes an old one's place: the next goes when the last one's successor is ready.

    Of a stage that the new revision does not have as many stay as of the others, which are of no use without it.
    """
    spared = [min(stage.old, max(0, stage.wanted - 1 - stage.new_ready)) for stage in stages]
    return [
        old if stage.wanted else min(stage.old, max(spared, default=0))
        for stage, old in zip(stages, spared, strict=True)
    ]
