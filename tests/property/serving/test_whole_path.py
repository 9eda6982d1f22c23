"""From a client's bytes to its answer, through losses, refusals, cancellations, deadlines and bad rows: once, and its own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.core.errors import DeadlineExceeded, Exhausted, ModelFailed, Unavailable
from tests.property.serving.whole_path import Path
from tests.unit.replica.doubles import ADDED as REPLICA_ADDED
from tests.unit.replica.doubles import POISON
from tests.unit.router.doubles import ADDED as ROUTER_ADDED
from tests.unit.router.doubles import Caller
from tests.unit.router.messages import request, rows


@dataclass
class Asked:
    """A request, and what may become of it. timely: its deadline is so far away that no step reaches it."""

    caller: Caller
    values: list[float]
    poisoned: bool
    timely: bool
    cancelled: bool = False


class World:
    """Takes steps, and holds what every caller may expect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self.outages = 0
        self.unloaded = False

    def submit(self, count: int, width: int, bad: int, timely: bool) -> None:
        """`count` rows of `width` values, the row `bad` of them (if there is one) poisoned."""
        first = 16 * len(self.asked)
        values = [float(first + row) for row in range(count)]
        sent = [POISON if row == bad else value for row, value in enumerate(values)]
        message = request(
            ("x", "FP32", [count, width]), raw=[rows(*sent, width=width)], id=str(first) if count % 2 else ""
        ).SerializeToString()
        caller = self.path.submit(message, None if timely else 1.0)
        self.asked.append(Asked(caller, values, bad < count, timely))

    def cancel(self, back: int) -> None:
        if back < len(self.asked):
            asked = self.asked[-1 - back]
            if asked.caller.request is not None:
                asked.cancelled = asked.cancelled or not asked.caller.answered
                self.path.cluster.dispatcher.cancel(asked.caller.request)

    def kill(self, number: int) -> None:
        self.path.kill(number % len(self.path.nodes))
        self.outages += not any(node.replica.link.up for node in self.path.nodes)

    def unload(self, number: int) -> None:
        """The replica does not have the model for a while, and the router does not know."""
        node = self.path.nodes[number % len(self.path.nodes)]
        node.loaded = not node.loaded
        self.unloaded = True

    def check(self, asked: Asked) -> None:
        """What became of a request that is not in flight any more."""
        caller = asked.caller
        if caller.response is not None:
            assert not asked.poisoned
            got = [value + ROUTER_ADDED - REPLICA_ADDED for value in caller.rows()]
            assert got == asked.values
            return
        if asked.cancelled:
            assert caller.error is None
            return
        assert caller.error is not None
        allowed = {
            ModelFailed: asked.poisoned,
            DeadlineExceeded: not asked.timely,
            Exhausted: True,  # sixty-four rows in flight, twenty-four waiting at a replica
            Unavailable: self.outages > 0 or self.unloaded,
        }
        assert any(isinstance(caller.error, kind) and possible for kind, possible in allowed.items()), caller.error


NONE = 99
SUBMIT = st.tuples(
    st.just("submit"), st.integers(1, 11), st.sampled_from([2, 2, 3, 4096]), st.sampled_from([*[NONE] * 6, 0, 5]),
    st.integers(0, 3).map(bool),
)  # fmt: skip
MOVES = ["take", "take", "finish", "finish", "give", "give", "cancel", "kill", "revive"]
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.001, 0.001, 0.4, 3.0]))
UNLOAD = st.tuples(st.just("unload"), st.integers(0, 5))
NUMBERED = st.tuples(st.sampled_from(MOVES), st.integers(0, 5))
CALM = (SUBMIT, SUBMIT, st.just(("turn",)), st.just(("turn",)), NUMBERED, NUMBERED, NUMBERED)
"""Steps after which no caller may hear an error, but for a full queue."""


def step(world: World, what: str, *arguments: int) -> None:
    path = world.path
    if what in ("take", "finish", "give"):
        node = path.nodes[arguments[0] % len(path.nodes)]
        node.take() if what == "take" else node.finish() if what == "finish" else node.give(1)
    elif what == "turn":
        path.cluster.turn()
    elif what == "revive":
        path.revive(arguments[0] % len(path.nodes))
    elif what == "wait":
        path.wait(arguments[0])
    else:
        getattr(world, what)(*arguments)


@given(st.integers(1, 3), st.lists(st.one_of(*CALM, WAIT, UNLOAD), min_size=12, max_size=60))
def test_every_caller_is_answered_once_with_its_own_rows_or_told_why_not(
    replicas: int, steps: list[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(Path(patch, replicas))
        for taken in steps:
            step(world, *taken)
        for number, node in enumerate(world.path.nodes):
            node.loaded = True
            world.path.revive(number)
        world.path.settle()
        for asked in world.asked:
            world.check(asked)
        world.path.cluster.assert_empty()
        for node in world.path.nodes:
            assert node.served.idle


@given(st.integers(2, 3), st.lists(st.one_of(*CALM), min_size=12, max_size=60))
def test_losing_replicas_costs_no_caller_an_error_while_another_lives(
    replicas: int, steps: list[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = World(Path(patch, replicas))
        for taken in steps:
            if taken[0] == "kill":  # never the last
                up = [node.replica.link.up for node in world.path.nodes]
                if sum(up) < 2 or not up[taken[1] % replicas]:
                    continue
            step(world, *taken)
        world.path.settle()
        for asked in world.asked:
            world.check(asked)
            error = asked.caller.error
            assert error is None or isinstance(error, Exhausted) or asked.poisoned
        assert world.outages == 0
        world.path.cluster.assert_empty()
