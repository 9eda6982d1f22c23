"""Batches that are shorter than a hand-over to a thread run at once; anything else queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.batching.policy import Limits
from shardline.core.errors import ModelFailed
from shardline.replica.scheduler import INLINE_BELOW_S
from tests.unit.replica.doubles import POISON, Bench, chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.replica.chunk import Chunk
    from shardline.replica.served import Served


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def fast(bench: Bench) -> Served:
    """A model that is known to be shorter than a hand-over to a thread."""
    model = bench.serve(cost_s=lambda _rows: INLINE_BELOW_S / 10)
    bench.send(model, [0.0])
    bench.finish()
    return model


def test_a_lone_short_chunk_runs_without_queueing(bench: Bench) -> None:
    model = fast(bench)
    assert bench.scheduler.express(model, chunk([1.0], [2.0, 3.0], first=10, arrived=bench.loop.now))
    assert [bench.answers.values(call) for call in (10, 11)] == [[1.0], [2.0, 3.0]]
    assert model.idle
    assert model.counters.requests == 3


def test_a_lone_short_chunk_that_fails_is_told_so(bench: Bench) -> None:
    model = fast(bench)
    assert bench.scheduler.express(model, chunk([POISON], [2.0], first=10, arrived=bench.loop.now))
    assert isinstance(bench.answers.errors[b"e", 10], ModelFailed)
    assert bench.answers.values(11) == [2.0]


def slow(bench: Bench) -> tuple[Served, Chunk]:
    return bench.serve(), chunk([1.0], first=10, arrived=bench.loop.now)


def others_wait(bench: Bench) -> tuple[Served, Chunk]:
    model = fast(bench)
    bench.submit(model, [5.0])
    return model, chunk([1.0], first=10, arrived=bench.loop.now)


def another_runs(bench: Bench) -> tuple[Served, Chunk]:
    model = fast(bench)
    bench.send(bench.serve(), [5.0])
    return model, chunk([1.0], first=10, arrived=bench.loop.now)


def above_the_largest(bench: Bench) -> tuple[Served, Chunk]:
    return fast(bench), chunk([1.0] * 9, first=10, arrived=bench.loop.now)


def late(bench: Bench) -> tuple[Served, Chunk]:
    return fast(bench), chunk([1.0], first=10, arrived=bench.loop.now, deadlines=[bench.loop.now])


def alone(bench: Bench) -> tuple[Served, Chunk]:
    model = fast(bench)
    model.unbatched_because = "rows change each other's answers"
    return model, chunk([1.0], first=10, arrived=bench.loop.now)


def waits_for_company(bench: Bench) -> tuple[Served, Chunk]:
    model = fast(bench)
    model.limits = Limits(8, delay_s=0.1)
    return model, chunk([1.0], first=10, arrived=bench.loop.now)


@pytest.mark.parametrize("case", [slow, others_wait, another_runs, above_the_largest, late, alone, waits_for_company])
def test_what_is_not_lone_or_not_short_must_queue(bench: Bench, case: Callable[[Bench], tuple[Served, Chunk]]) -> None:
    model, made = case(bench)
    assert not bench.scheduler.express(model, made)
    assert not [key for key in (*bench.answers.rows, *bench.answers.errors) if key[1] >= 10]


def test_a_short_batch_runs_at_once_without_an_executor(bench: Bench) -> None:
    model = bench.serve(cost_s=lambda _rows: INLINE_BELOW_S / 10)
    bench.send(model, [1.0])
    bench.finish()
    (call,) = bench.send(model, [2.0])
    assert bench.running() == []
    assert bench.answers.values(call) == [2.0]
    assert model.idle


def test_a_short_batch_does_not_overtake_one_that_runs(bench: Bench) -> None:
    quick, slow = bench.serve(cost_s=lambda _rows: INLINE_BELOW_S / 10), bench.serve()
    bench.send(quick, [0.0])
    bench.finish()
    bench.send(slow, [1.0])
    (call,) = bench.send(quick, [2.0])
    assert (b"e", call) not in bench.answers.rows
    bench.finish()
    assert bench.answers.values(call) == [2.0]


def test_a_failing_short_batch_is_told_as_any_other(bench: Bench) -> None:
    model = bench.serve(cost_s=lambda _rows: INLINE_BELOW_S / 10)
    bench.send(model, [0.0])
    bench.finish()
    bad, good = bench.send(model, [POISON], [1.0])
    assert isinstance(bench.answers.errors[b"e", bad], ModelFailed)
    assert bench.answers.values(good) == [1.0]
