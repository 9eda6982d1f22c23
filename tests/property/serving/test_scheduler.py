"""Whatever arrives, fails, is late or is cancelled: each call gets exactly its own rows, or one error, or nobody asks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.core.errors import DeadlineExceeded, Exhausted, ModelFailed
from tests.unit.replica.doubles import HEAD, LARGE, OTHER_SHAPE, POISON, Bench

PEERS = (b"a", b"b")
MAX_ROWS = 4


@dataclass(frozen=True)
class Send:
    """A message of `calls` calls (rows of each, whether one of them poisons the model). in_s: their deadline."""

    calls: tuple[tuple[int, bool], ...]
    head: int
    peer: int
    priority: int
    in_s: float | None


@dataclass(frozen=True)
class Cancel:
    """The n-th last call of a peer, at any point of its life."""

    back: int


@dataclass(frozen=True)
class Finish:
    """An executor's run ends."""

    executor: int


@dataclass(frozen=True)
class Wait:
    seconds: float


CALLS = st.lists(
    st.tuples(st.integers(1, MAX_ROWS), st.just(False) | st.just(False) | st.booleans()), min_size=1, max_size=4
)
STEPS = st.one_of(
    st.builds(
        Send,
        CALLS.map(tuple),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 2),
        st.sampled_from([None, None, 0.5]),
    ),
    st.builds(Cancel, st.integers(0, 6)),
    st.builds(Finish, st.integers(0, 1)),
    st.builds(Wait, st.sampled_from([0.001, 0.2, 1.0])),
)


@dataclass
class Sent:
    """What became of a call as far as its caller can tell."""

    peer: bytes
    call: int
    rows: int
    poisoned: bool
    cancelled: bool = False
    late: bool = False


class Drive:
    """Takes the steps and knows what each call may be answered."""

    def __init__(self, patch: pytest.MonkeyPatch, executors: int, delay_s: float, limit: int, because: str) -> None:
        self.bench = Bench(patch, executors)
        self.model = self.bench.serve(max_rows=MAX_ROWS, delay_s=delay_s, queue_rows=limit, because=because)
        self.sent: list[Sent] = []

    def take(self, step: Send | Cancel | Finish | Wait) -> None:
        bench = self.bench
        if isinstance(step, Send):
            self._send(step)
        elif isinstance(step, Cancel) and step.back < len(self.sent):
            gone = self.sent[-1 - step.back]
            gone.cancelled = True
            bench.scheduler.cancel(gone.peer, {gone.call})
            bench.scheduler.pump()
        elif isinstance(step, Finish):
            busy = [executor for executor in bench.executors if executor.batch is not None]
            if busy:
                busy[step.executor % len(busy)].finish()
        elif isinstance(step, Wait):
            bench.loop.advance(step.seconds)

    def _send(self, step: Send) -> None:
        bench = self.bench
        first = bench.calls
        deadlines = None if step.in_s is None else [bench.loop.now + step.in_s] * len(step.calls)
        values = [
            [POISON if bad and row == rows - 1 else float(number) for row in range(rows)]
            for number, (rows, bad) in enumerate(step.calls, first)
        ]
        peer = PEERS[step.peer]
        self.sent += [
            Sent(peer, number, rows, bad, late=step.in_s is not None)
            for number, (rows, bad) in enumerate(step.calls, first)
        ]
        bench.send(
            self.model, *values, head=(HEAD, OTHER_SHAPE, LARGE)[step.head], peer=peer,
            priority=step.priority, deadlines=deadlines,
        )  # fmt: skip

    def end(self) -> None:
        """Let everything come to its end."""
        for _ in range(1000):
            self.bench.finish_all()
            if self.model.idle:
                return
            self.bench.loop.advance(10.0)
        raise AssertionError("rows are left although executors are idle and time has passed")


@given(
    st.lists(STEPS, max_size=25),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.0, 0.1]),
    st.sampled_from([12, 1000]),
    st.sampled_from(["", "", "rows change each other's answers"]),
)
def test_each_call_gets_exactly_its_rows_or_one_error(
    steps: list[Send | Cancel | Finish | Wait], executors: int, delay_s: float, limit: int, because: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        drive = Drive(patch, executors, delay_s, limit, because)
        for step in steps:
            drive.take(step)
            assert drive.model.queue.rows <= limit
        drive.end()
        answers = drive.bench.answers
        for sent in drive.sent:
            key = (sent.peer, sent.call)
            error = answers.errors.get(key)
            if key in answers.rows:
                assert answers.values(sent.call, sent.peer) == [float(sent.call)] * sent.rows
                assert not sent.poisoned
            elif error is None:
                assert sent.cancelled
            else:
                allowed = {Exhausted: limit < 1000, DeadlineExceeded: sent.late, ModelFailed: sent.poisoned}
                assert allowed[type(error)]
        assert drive.model.queue.rows == drive.model.running_rows == 0
        assert drive.model.queue.calls == 0
