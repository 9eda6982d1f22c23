"""Callers that each wait for their answer before they call again, against the scheduler in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.replica.doubles import Bench

if TYPE_CHECKING:
    from shardline.replica.served import Served


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def closed_loop(bench: Bench, callers: int, batches: int, spread_s: float) -> list[int]:
    """Sizes of the batches where each caller calls again within `spread_s` of its answer."""
    model = bench.serve(max_rows=16, cost_s=cost_s)
    loop = bench.loop
    waiting = [loop.now + spread_s * number / callers for number in range(callers)]
    while len(bench.answers.batches) < batches:
        if not bench.running():  # the next caller comes, or the policy has waited long enough
            loop.advance(max(0.0, min(waiting, default=loop.now + spread_s) - loop.now))
            arrive(bench, model, waiting)
            continue
        ends = loop.now + cost_s(bench.running()[0].bucket)
        for at in sorted(at for at in waiting if at <= ends):
            loop.now = at
            arrive(bench, model, waiting)
        loop.now = ends - cost_s(bench.running()[0].bucket)
        answered = bench.finish().rows
        waiting += [ends + spread_s * (number + 1) / answered for number in range(answered)]
    return [rows for rows, _ in bench.answers.batches]


def arrive(bench: Bench, model: Served, waiting: list[float]) -> None:
    """Callers whose time has come call."""
    for at in [at for at in waiting if at <= bench.loop.now]:
        waiting.remove(at)
        bench.send(model, [1.0])


def cost_s(rows: int) -> float:
    return 0.010 + 0.0001 * rows


@pytest.mark.parametrize("callers", [2, 8, 16])
def test_callers_that_each_wait_for_their_answer_are_kept_together(bench: Bench, callers: int) -> None:
    seen = closed_loop(bench, callers, batches=100, spread_s=0.002)
    settled = seen[len(seen) // 2 :]
    assert sum(settled) / len(settled) > 0.9 * callers
