"""A split model through its stages, under losses, cut links, cancellations and bad rows: each caller its own rows, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline.core.errors import Exhausted, ModelFailed, Unavailable
from tests.property.serving.split_path import Split, computed
from tests.unit.replica.doubles import POISON
from tests.unit.router.messages import request

if TYPE_CHECKING:
    from tests.unit.router.doubles import Caller


@dataclass
class Asked:
    """A request and what was sent."""

    caller: Caller
    x: np.ndarray
    cancelled: bool = False

    @property
    def poisoned(self) -> bool:
        return bool((self.x == POISON).any())


class World:
    """Takes steps. lone: whether a stage ever had no replica."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.asked: list[Asked] = []
        self.lone = False

    def submit(self, count: int, width: int, bad: int) -> None:
        first = 16 * len(self.asked)
        x = np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], width, axis=1)
        if bad < count:
            x[bad] = POISON
        message = request(("x", "FP32", [count, width]), raw=[x.tobytes()]).SerializeToString()
        self.asked.append(Asked(self.split.cluster.submit(message), x))

    def cancel(self, back: int) -> None:
        if back < len(self.asked):
            asked = self.asked[-1 - back]
            if asked.caller.request is not None:
                asked.cancelled = asked.cancelled or not asked.caller.answered
                self.split.cluster.dispatcher.cancel(asked.caller.request)

    def kill(self, number: int) -> None:
        self.split.kill(number)
        nodes = self.split.nodes
        self.lone = self.lone or not (nodes[number].alive or nodes[number ^ 1].alive)

    def may_kill(self, number: int) -> bool:
        """Whether another replica of that stage would be left."""
        return self.split.nodes[number].alive and self.split.nodes[number ^ 1].alive

    def move(self, number: int) -> None:
        links = self.split.between
        if links:
            links[number % len(links)].move()

    def cut(self, number: int) -> None:
        links = [link for link in self.split.between if link.up]
        if links:
            links[number % len(links)].cut()

    def check(self, asked: Asked) -> None:
        caller = asked.caller
        if caller.response is None:
            if asked.cancelled:
                assert caller.error is None
                return
            allowed = {ModelFailed: asked.poisoned, Exhausted: True, Unavailable: self.lone}
            assert any(isinstance(caller.error, kind) and ok for kind, ok in allowed.items()), caller.error
            return
        assert not asked.poisoned
        for output, raw in zip(caller.response.outputs, caller.response.raw_output_contents, strict=True):
            got = np.frombuffer(raw, np.float32).reshape(output.shape)
            assert np.array_equal(got, computed(output.name, asked.x))


NODES = st.integers(0, 5)
SUBMIT = st.tuples(
    st.just("submit"), st.integers(1, 9), st.sampled_from([2, 2, 3, 4096]), st.sampled_from([*[99] * 8, 0, 5])
)
STEPS = st.one_of(
    SUBMIT,
    SUBMIT,
    st.just(("turn",)),
    st.just(("flow",)),
    st.just(("flow",)),
    st.tuples(st.sampled_from(["take", "finish", "give", "move", "move"]), NODES),
    st.tuples(st.sampled_from(["take", "finish", "give", "move", "move"]), NODES),
    st.tuples(st.sampled_from(["cancel", "kill", "revive", "cut"]), NODES),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.06, 3.0])),
)


def step(world: World, what: str, *arguments: int) -> None:
    split = world.split
    if what in ("take", "finish", "give"):
        node = split.nodes[arguments[0]]
        if node.alive:
            getattr(node, what)()
    elif what == "turn":
        split.cluster.turn()
    elif what in ("revive", "wait", "flow"):
        getattr(split, what)(*arguments)
    else:
        getattr(world, what)(*arguments)


def ended(world: World) -> None:
    """Everything is back and comes to its end; then nothing is left anywhere."""
    for number in range(6):
        world.split.revive(number)
    world.split.settle()
    for asked in world.asked:
        world.check(asked)
    world.split.wait(200.0)
    world.split.cluster.assert_empty()
    for node in world.split.nodes:
        assert node.served.running_rows == 0


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=12, max_size=60))
def test_every_caller_of_a_split_model_is_answered_once_with_its_own_rows(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(Split(patch))
        for taken in steps:
            step(world, *taken)
        ended(world)


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=12, max_size=60))
def test_no_loss_costs_an_error_while_every_stage_has_another_replica(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(Split(patch))
        for number in range(6):
            world.split.revive(number)
        for taken in steps:
            if taken[0] == "kill" and not world.may_kill(taken[1]):
                continue
            step(world, *taken)
        ended(world)
        for asked in world.asked:
            assert asked.poisoned or not isinstance(asked.caller.error, Unavailable)
