"""Outputs that cannot be told, or do not belong to rows: their callers hear of it, the others are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.core.datatypes import BYTES
from shardline.core.errors import ModelFailed
from shardline.core.models import TensorSpec
from shardline.replica.answers import LinkAnswers
from shardline.replica.batch import Outcome
from tests.unit.replica.doubles import ADDED, Bench, chunk, served
from tests.unit.replica.test_answers import LOOP, Link, batch_of, outputs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


class Shaped:
    """A session whose output has a shape of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def run(self, _feeds: Mapping[str, np.ndarray], _outputs: Sequence[str], _run: object = None) -> list[np.ndarray]:
        return [np.zeros(self.shape, np.float32)]


@pytest.mark.parametrize("shape", [(), (1, 2), (9, 2), (2,)], ids=str)
@pytest.mark.parametrize("because", ["", "probed to be unsafe"], ids=["batched", "unbatched"])
def test_an_output_without_the_batch_axis_is_a_failure_and_never_another_callers_rows(
    bench: Bench, shape: tuple[int, ...], because: str
) -> None:
    model = bench.serve(because=because)
    model.session = Shaped(shape)  # type: ignore[assignment]
    (call,) = bench.send(model, [1.0, 2.0, 3.0])
    bench.finish_all()
    error = bench.answers.errors[b"e", call]
    assert isinstance(error, ModelFailed)
    assert f"output 'y' has shape {list(shape)}" in error.message
    assert bench.answers.rows == {}


def test_an_output_of_a_model_without_a_batch_axis_may_have_any_shape(bench: Bench) -> None:
    model = bench.serve(max_rows=0)
    model.session = Shaped((5,))  # type: ignore[assignment]
    (call,) = bench.send(model, [1.0])
    bench.finish_all()
    assert bench.answers.rows[b"e", call].shape == (5,)


@pytest.mark.parametrize("short", [False, True], ids=["executor", "at once"])
def test_outputs_that_cannot_be_sent_fail_their_callers_and_the_next_batch_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    model = bench.serve()
    if short:
        model.fit.observe(1, 1e-6)
        model.fit.observe(8, 2e-6)
    results = bench.answers.results

    def fail_once(*arguments: Any) -> None:
        monkeypatch.setattr(bench.answers, "results", results)
        raise TypeError("these cannot be encoded")

    monkeypatch.setattr(bench.answers, "results", fail_once)
    bad, good = bench.send(model, [1.0]), bench.send(model, [2.0])
    bench.finish_all()
    assert isinstance(bench.answers.errors[b"e", bad[0]], ModelFailed)
    assert bench.answers.values(good[0]) == [2.0]
    assert model.idle
    assert model.counters.rows == 1
    assert sum(model.counters.failed.values()) == 1


def test_a_group_that_cannot_be_encoded_leaves_no_part_of_it_in_the_message() -> None:
    target = served(LOOP)
    target.spec = target.spec.__class__(
        "m", 1, "onnx", target.spec.inputs, (TensorSpec("y", BYTES, (1,)),), target.spec.batching, b"", ""
    )
    link = Link()
    answers = LinkAnswers("r-1", link.send)
    bad, good = chunk([1.0]), chunk([2.0], first=1)
    odd = np.empty((8, 1), dtype=object)
    odd[:] = "\udc80"  # half a surrogate pair has no UTF-8
    with pytest.raises(UnicodeEncodeError):
        answers.results(batch_of(target, [bad]), Outcome([bad], [odd]))
    answers.results(batch_of(served(LOOP), [good]), Outcome([good], [outputs_of([good], width=4096)]))
    answers.flush()
    assert set(link.rows) == {(b"e", 1)}
    assert link.floats(1)[0] == 2.0 + ADDED


def test_rows_that_are_not_executed_are_counted_by_reason(bench: Bench) -> None:
    model = bench.serve(max_rows=4)
    bench.send(model, [0.0])
    late = bench.submit(model, [1.0, 2.0], deadlines=[bench.loop.now + 0.5])
    gone = bench.submit(model, [3.0, 4.0, 5.0])
    kept = bench.submit(model, [6.0])
    bench.scheduler.cancel(b"e", set(gone))
    bench.loop.advance(1.0)
    bench.finish_all()
    assert model.counters.dropped_rows == {"deadline": 2, "cancelled": 3}
    assert model.counters.rows == 2
    assert bench.answers.values(kept[0]) == [6.0]
    assert (b"e", late[0]) in bench.answers.errors


def test_rows_of_a_run_that_was_ended_are_counted_as_cancelled(bench: Bench) -> None:
    model = bench.serve()
    calls = bench.send(model, [1.0, 2.0])
    bench.scheduler.cancel(b"e", set(calls))
    bench.finish_all()
    assert model.counters.dropped_rows == {"cancelled": 2}
    assert model.counters.rows == 0
    assert (bench.answers.rows, bench.answers.errors) == ({}, {})
