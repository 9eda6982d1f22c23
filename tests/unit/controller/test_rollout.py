"""How a change reaches pods, as a table: no room is ever counted, the scheduler is asked."""

import pytest

from shardline.controller.rollout import StageState, StageStep, steps
from shardline.controller.spec import RolloutMode

AUTO, SURGE, RECREATE = RolloutMode.AUTO, RolloutMode.SURGE, RolloutMode.RECREATE


@pytest.mark.parametrize(
    ("mode", "state", "step"),
    [
        pytest.param(AUTO, StageState(2, 0, 0, 0, 0), StageStep(2, 0), id="first start"),
        pytest.param(AUTO, StageState(2, 0, 0, 2, 2), StageStep(2, 2), id="surge holds the old"),
        pytest.param(AUTO, StageState(2, 1, 0, 2, 2), StageStep(2, 2), id="surge holds until all are ready"),
        pytest.param(AUTO, StageState(2, 2, 0, 2, 2), StageStep(2, 0), id="all ready: the old drain"),
        pytest.param(AUTO, StageState(2, 0, 2, 2, 2), StageStep(2, 1), id="no room: one old goes"),
        pytest.param(AUTO, StageState(2, 0, 1, 1, 2), StageStep(2, 1), id="no room: the next waits for a successor"),
        pytest.param(AUTO, StageState(2, 1, 1, 1, 1), StageStep(2, 0), id="no room: successor ready, the next goes"),
        pytest.param(AUTO, StageState(1, 0, 1, 1, 1), StageStep(1, 0), id="no room for one: recreate"),
        pytest.param(SURGE, StageState(2, 0, 2, 2, 2), StageStep(2, 2), id="surge waits for room"),
        pytest.param(RECREATE, StageState(2, 0, 0, 2, 2), StageStep(0, 1), id="recreate: an old one first"),
        pytest.param(RECREATE, StageState(2, 0, 0, 1, 1), StageStep(1, 1), id="recreate: then its successor"),
        pytest.param(RECREATE, StageState(1, 0, 0, 0, 1), StageStep(0, 0), id="recreate: not while the old one drains"),
        pytest.param(RECREATE, StageState(1, 0, 0, 0, 0), StageStep(1, 0), id="recreate: when it is gone"),
        pytest.param(AUTO, StageState(0, 0, 0, 2, 2), StageStep(0, 0), id="scaled to zero"),
    ],
)
def test_one_step_of_one_stage(mode: RolloutMode, state: StageState, step: StageStep) -> None:
    assert steps(mode, (state,)) == (step,)


@pytest.mark.parametrize(
    ("states", "old"),
    [
        pytest.param(
            [StageState(1, 1, 0, 2, 2), StageState(2, 1, 1, 0, 0)],
            [0, 0],
            id="old pods of one stage hold another's room",
        ),
        pytest.param(
            [StageState(1, 1, 0, 2, 2), StageState(1, 0, 1, 0, 0)],
            [1, 0],
            id="the last old one stays while others can go",
        ),
        pytest.param([StageState(1, 1, 0, 1, 2), StageState(1, 0, 1, 0, 0)], [1, 0], id="and while one of them drains"),
        pytest.param(
            [StageState(1, 1, 0, 1, 1), StageState(1, 0, 1, 0, 0)], [0, 0], id="nothing else makes room: a gap"
        ),
        pytest.param(
            [StageState(3, 2, 1, 0, 0), StageState(0, 0, 0, 2, 2)],
            [0, 0],
            id="a stage that is not wanted any more holds the room",
        ),
        pytest.param(
            [StageState(3, 0, 3, 3, 3), StageState(0, 0, 0, 1, 1)],
            [2, 1],
            id="but its last pod serves as long as the old ones of others do",
        ),
        pytest.param([StageState(3, 0, 3, 2, 2)], [1], id="more are wanted than there were: one goes"),
        pytest.param(
            [StageState(3, 0, 2, 1, 1, new_loading=1)], [1], id="the next one not before its successor is ready"
        ),
        pytest.param([StageState(3, 1, 2, 1, 1)], [0], id="then the next"),
    ],
)
def test_where_there_is_no_room_old_pods_go_one_by_one(states: list[StageState], old: list[int]) -> None:
    assert [step.old for step in steps(AUTO, tuple(states))] == old


def test_a_stage_that_is_not_wanted_any_more_stays_until_the_new_revision_is_whole() -> None:
    beyond = StageState(0, 0, 0, 2, 2)
    assert [step.old for step in steps(AUTO, (StageState(2, 1, 0, 1, 1), beyond))] == [1, 2]
    assert [step.old for step in steps(AUTO, (StageState(2, 2, 0, 1, 1), beyond))] == [0, 0]
    assert [step.old for step in steps(RECREATE, (StageState(3, 0, 0, 3, 3), beyond))] == [2, 2]


def test_no_old_pod_goes_before_every_stage_is_whole() -> None:
    whole, partial = StageState(1, 1, 0, 1, 1), StageState(1, 0, 0, 1, 1)
    assert [step.old for step in steps(AUTO, (whole, partial))] == [1, 1]


@pytest.mark.parametrize("wanted", [1, 2, 5])
@pytest.mark.parametrize("room", [0, 1, 3, 10])
@pytest.mark.parametrize("mode", [AUTO, RECREATE])
def test_a_rollout_ends_and_never_lacks_more_than_one(mode: RolloutMode, room: int, wanted: int) -> None:
    """A cluster with `room` beyond the old pods, played move by move."""
    old, placed, ready, least = wanted, 0, 0, wanted
    for _ in range(50):
        asked = steps(mode, (StageState(wanted, ready, max(0, asked_new(placed, wanted, mode)), old, old),))[0]
        old = min(old, asked.old)
        ready = placed
        placed = min(asked.new, wanted + room - old)
        least = min(least, old + ready)
        if old == 0 and ready == wanted:
            break
    assert (old, ready) == (0, wanted)
    assert least >= wanted - 1


def asked_new(placed: int, wanted: int, mode: RolloutMode) -> int:
    """Pods without a node: with recreate none is made before there is room."""
    return wanted - placed if mode is AUTO else 0
