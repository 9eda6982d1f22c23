"""Which batch runs when: in virtual time, with executors that end when they are told to."""

from __future__ import annotations

import pytest

from shardline.batching.latency import LatencyFit
from shardline.core.errors import DeadlineExceeded, Exhausted, ModelFailed
from shardline.replica import batch as batch_module
from tests.unit.replica.doubles import LARGE, OTHER_SHAPE, POISON, Bench, chunk


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def sizes(bench: Bench) -> list[int]:
    return [batch.rows for batch in bench.running()]


def test_an_idle_executor_takes_what_is_there(bench: Bench) -> None:
    model = bench.serve()
    (call,) = bench.send(model, [1.0, 2.0])
    assert sizes(bench) == [2]
    bench.finish()
    assert bench.answers.values(call) == [1.0, 2.0]
    assert bench.running() == []
    assert model.idle


def test_rows_that_arrive_while_a_batch_runs_form_the_next(bench: Bench) -> None:
    model = bench.serve()
    first = bench.send(model, [1.0])
    rest = [*bench.send(model, [2.0], [3.0, 4.0]), *bench.send(model, [5.0])]
    assert sizes(bench) == [1]
    bench.finish()
    assert sizes(bench) == [4]
    bench.finish()
    assert [bench.answers.values(call) for call in [*first, *rest]] == [[1.0], [2.0], [3.0, 4.0], [5.0]]
    assert bench.answers.batches == [(1, 1), (4, 4)]


def test_a_batch_holds_at_most_the_models_rows_and_never_tears_a_call(bench: Bench) -> None:
    model = bench.serve(max_rows=4)
    bench.send(model, [0.0])
    calls = bench.submit(model, [1.0], [2.0, 3.0], [4.0, 5.0], [6.0])
    bench.scheduler.pump()
    bench.finish_all()
    assert bench.answers.batches == [(1, 1), (3, 4), (3, 4)]
    assert [bench.answers.values(call) for call in calls] == [[1.0], [2.0, 3.0], [4.0, 5.0], [6.0]]


def test_rows_of_different_shapes_never_share_a_batch(bench: Bench) -> None:
    model = bench.serve()
    bench.send(model, [0.0])
    two = bench.submit(model, [1.0])
    bench.loop.advance(0.001)
    three = bench.submit(model, [2.0], head=OTHER_SHAPE)
    two += bench.submit(model, [3.0])
    bench.scheduler.pump()
    bench.finish()
    assert sizes(bench) == [2]
    bench.finish_all()
    assert [bench.answers.values(call) for call in [*two, *three]] == [[1.0], [3.0], [2.0]]
    assert bench.answers.rows[b"e", three[0]].shape == (1, 3)


def test_every_executor_has_a_batch_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, executors=2)
    model = bench.serve(max_rows=2)
    calls = bench.send(model, [1.0, 1.0], [2.0, 2.0], [3.0])
    assert sorted(sizes(bench)) == [2, 2]
    last, first = bench.executors[::-1]
    last.finish()
    assert sizes(bench) == [2, 1] or sizes(bench) == [1, 2]
    first.finish()
    bench.finish_all()
    assert [bench.answers.values(call) for call in calls] == [[1.0, 1.0], [2.0, 2.0], [3.0]]
    assert model.idle


def test_models_take_turns_by_age(bench: Bench) -> None:
    one, two = bench.serve(), bench.serve()
    bench.send(one, [0.0])
    bench.loop.advance(0.001)
    bench.send(two, [1.0])
    bench.loop.advance(0.001)
    bench.send(one, [2.0])
    bench.finish()
    assert [batch.served for batch in bench.running()] == [two]
    bench.finish()
    assert [batch.served for batch in bench.running()] == [one]
    bench.finish()
    assert bench.running() == []


def test_the_most_urgent_rows_run_first(bench: Bench) -> None:
    model = bench.serve(max_rows=2, priority_levels=3)
    bench.send(model, [0.0])
    late = bench.send(model, [1.0, 2.0], priority=3)
    urgent = bench.send(model, [3.0, 4.0], priority=1)
    bench.finish()
    bench.finish()
    assert (b"e", urgent[0]) in bench.answers.rows
    assert (b"e", late[0]) not in bench.answers.rows
    bench.finish()
    assert bench.answers.values(late[0]) == [1.0, 2.0]


def test_a_batch_waits_for_company_as_long_as_the_model_says(bench: Bench) -> None:
    model = bench.serve(max_rows=4, delay_s=0.010)
    first = bench.send(model, [1.0])
    assert bench.running() == []
    bench.loop.advance(0.004)
    second = bench.send(model, [2.0])
    assert bench.running() == []
    bench.loop.advance(0.0061)
    assert sizes(bench) == [2]
    bench.finish()
    assert [bench.answers.values(call) for call in (*first, *second)] == [[1.0], [2.0]]


def test_a_full_batch_does_not_wait(bench: Bench) -> None:
    model = bench.serve(max_rows=4, delay_s=10.0)
    bench.send(model, [1.0, 2.0])
    assert bench.running() == []
    bench.send(model, [3.0, 4.0])
    assert sizes(bench) == [4]


def test_a_wait_ends_before_the_first_deadline(bench: Bench) -> None:
    model = bench.serve(max_rows=4, delay_s=10.0)
    (call,) = bench.send(model, [1.0], deadlines=[bench.loop.now + 0.5])
    bench.loop.advance(0.4)
    assert bench.running() == []
    bench.loop.advance(0.2)
    bench.finish_all()
    key = (b"e", call)
    assert key in bench.answers.rows or isinstance(bench.answers.errors[key], DeadlineExceeded)


def test_one_model_that_waits_does_not_hold_up_another(bench: Bench) -> None:
    waits, ready = bench.serve(delay_s=5.0), bench.serve()
    bench.send(waits, [1.0])
    bench.send(ready, [2.0])
    assert [batch.served for batch in bench.running()] == [ready]


def test_rows_whose_deadline_passed_are_refused_unexecuted_and_the_rest_runs(bench: Bench) -> None:
    model = bench.serve()
    bench.send(model, [0.0])
    now = bench.loop.now
    early, late, none = bench.send(model, [1.0], [2.0, 2.0], [3.0], deadlines=[now + 1.0, now + 0.1, float("inf")])
    bench.loop.advance(0.25)
    bench.finish_all()
    error = bench.answers.errors[b"e", late]
    assert isinstance(error, DeadlineExceeded)
    assert "250.0 ms in the batching queue of 'm' (not executed)" in error.message
    assert [bench.answers.values(call) for call in (early, none)] == [[1.0], [3.0]]
    session = model.session
    assert not any((run == 2.0).any() for run in session.runs)  # type: ignore[attr-defined]
    assert model.idle


def test_a_queue_of_late_rows_only_frees_the_executor_for_others(bench: Bench) -> None:
    model, other = bench.serve(), bench.serve()
    bench.send(model, [0.0])
    late = bench.send(model, [1.0], deadlines=[bench.loop.now + 0.1])
    bench.loop.advance(0.2)
    fresh = bench.send(other, [2.0])
    bench.finish_all()
    assert isinstance(bench.answers.errors[b"e", late[0]], DeadlineExceeded)
    assert bench.answers.values(fresh[0]) == [2.0]


def test_a_full_queue_refuses_with_a_hint(bench: Bench) -> None:
    model = bench.serve(max_rows=2, queue_rows=3)
    model.fit = LatencyFit(alpha_s=0.010, beta_s=0.001)
    bench.send(model, [0.0])
    kept = bench.send(model, [1.0, 2.0])
    (refused,) = bench.send(model, [3.0, 4.0])
    (small,) = bench.send(model, [5.0])
    error = bench.answers.errors[b"e", refused]
    assert isinstance(error, Exhausted)
    assert "'m': queue is full (2 of 3 rows)" in error.message
    assert error.retry_after_s == pytest.approx(0.012)
    bench.finish_all()
    assert [bench.answers.values(call) for call in (*kept, small)] == [[1.0, 2.0], [5.0]]
    assert model.counters.failed == {"exhausted": 1}


def test_cancelled_rows_are_not_executed(bench: Bench) -> None:
    model = bench.serve()
    bench.send(model, [0.0])
    one, two, three = bench.send(model, [1.0], [2.0], [3.0])
    bench.scheduler.cancel(b"e", {two})
    bench.finish_all()
    assert [bench.answers.values(call) for call in (one, three)] == [[1.0], [3.0]]
    assert (b"e", two) not in bench.answers.rows
    assert (b"e", two) not in bench.answers.errors
    assert not any((run == 2.0).any() for run in model.session.runs)  # type: ignore[attr-defined]
    assert model.idle


def test_a_cancellation_is_its_own_peers_only(bench: Bench) -> None:
    model = bench.serve()
    bench.send(model, [0.0], peer=b"other")
    (call,) = bench.send(model, [1.0])
    bench.scheduler.cancel(b"other", {call})
    bench.finish_all()
    assert bench.answers.values(call) == [1.0]


def test_a_run_that_nobody_waits_for_is_ended(bench: Bench) -> None:
    model = bench.serve()
    one, two = bench.send(model, [1.0], [2.0])
    bench.scheduler.cancel(b"e", {one})
    (batch,) = bench.running()
    assert not batch.terminated
    bench.scheduler.cancel(b"e", {two})
    assert batch.terminated
    bench.finish()
    assert bench.answers.rows == {}
    assert bench.answers.errors == {}
    assert model.idle


def test_a_run_that_somebody_waits_for_goes_on(bench: Bench) -> None:
    model = bench.serve()
    one, two = bench.send(model, [1.0], [2.0])
    bench.scheduler.cancel(b"e", {two, 99})
    bench.finish()
    assert bench.answers.values(one) == [1.0]


@pytest.mark.parametrize("bad", range(5))
def test_a_call_that_fails_the_model_fails_alone(bench: Bench, bad: int) -> None:
    model = bench.serve()
    bench.send(model, [0.0])
    calls = [*bench.send(model, *([POISON if number == bad else float(number)] for number in range(3)))]
    calls += bench.send(model, *([POISON if number == bad else float(number)] for number in range(3, 5)))
    bench.finish_all()
    error = bench.answers.errors[b"e", calls[bad]]
    assert isinstance(error, ModelFailed)
    good = [number for number in range(5) if number != bad]
    assert [bench.answers.values(calls[number]) for number in good] == [[float(number)] for number in good]
    assert model.counters.failed == {"model_failed": 1}


def test_when_every_call_fails_each_is_told(bench: Bench) -> None:
    model = bench.serve()
    calls = bench.send(model, *[[POISON]] * 4)
    bench.finish_all()
    assert {call for _, call in bench.answers.errors} == set(calls)
    assert model.idle


def test_a_batch_that_ended_is_followed_by_the_next_whatever_became_of_it(bench: Bench) -> None:
    model = bench.serve()
    bench.send(model, [POISON])
    (call,) = bench.send(model, [1.0])
    bench.finish()
    bench.finish()
    assert bench.answers.values(call) == [1.0]


class Log:
    """Remembers what was logged, instead of drawing tracebacks."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_fields: object) -> None:
        self.events.append(event)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(batch_module, "log", made)
    return made


class Broken:
    """A session that raises what no session should."""

    def run(self, *_arguments: object) -> list[object]:
        raise RuntimeError("not a ModelFailed")


def test_an_executor_outlives_whatever_a_run_raises(bench: Bench, log: Log) -> None:
    model, other = bench.serve(), bench.serve()
    good, model.session = model.session, Broken()  # type: ignore[assignment]
    calls = bench.send(model, [1.0], [2.0])
    bench.finish_all()
    assert {type(error) for error in bench.answers.errors.values()} == {ModelFailed}
    assert {call for _, call in bench.answers.errors} == set(calls)
    assert set(log.events) == {"batch.unexpected"}
    model.session = good
    again = [*bench.send(model, [3.0]), *bench.send(other, [4.0])]
    bench.finish_all()
    assert [bench.answers.values(call) for call in again] == [[3.0], [4.0]]
    assert model.idle


def test_rows_that_cannot_be_joined_run_apart_and_the_executor_goes_on(bench: Bench, log: Log) -> None:
    model = bench.serve()
    first = bench.send(model, [0.0])
    other = chunk([2.0], first=50)
    other.arrays = (other.arrays[0][:, :1],)
    bench.submit(model, [1.0])
    bench.scheduler.submit(model, other)
    bench.finish_all()
    assert [bench.answers.values(call) for call in (*first, 1, 50)] == [[0.0], [1.0], [2.0]]
    assert bench.answers.rows[b"e", 50].shape == (1, 1)
    assert log.events == ["batch.unexpected"]
    after = bench.send(model, [3.0])
    bench.finish_all()
    assert bench.answers.values(after[0]) == [3.0]


def test_a_model_that_is_not_batched_runs_call_by_call(bench: Bench) -> None:
    model = bench.serve(because="rows change each other's answers")
    calls = bench.send(model, [1.0], [2.0, 3.0, 4.0], [5.0])
    bench.finish_all()
    assert [bench.answers.values(call) for call in calls] == [[1.0], [2.0, 3.0, 4.0], [5.0]]
    assert bench.answers.batches == [(1, 1), (3, 3), (1, 1)]


def test_a_model_without_a_batch_axis_gets_its_tensors_as_they_came(bench: Bench) -> None:
    model = bench.serve(max_rows=0)
    calls = [*bench.send(model, [1.0]), *bench.send(model, [2.0])]
    bench.finish_all()
    assert [bench.answers.values(call) for call in calls] == [[1.0], [2.0]]


def test_large_rows_that_arrive_while_a_batch_runs_are_prefetched_and_answered_right(bench: Bench) -> None:
    model = bench.serve(max_rows=4)
    calls = bench.send(model, [0.0], head=LARGE)
    for number in range(1, 12):
        calls += bench.send(model, [float(number)], head=LARGE)
    bench.scheduler.cancel(b"e", {calls[2], calls[7]})
    while bench.running():
        bench.finish()
    wanted = [call for call in calls if call not in (calls[2], calls[7])]
    assert [bench.answers.values(call) for call in wanted] == [[float(call)] for call in wanted]


def test_a_call_larger_than_the_largest_batch_is_run_all_the_same(bench: Bench) -> None:
    model = bench.serve(max_rows=4)
    bench.send(model, [0.0], head=LARGE)
    (call,) = bench.send(model, [float(number) for number in range(6)], head=LARGE)
    bench.finish_all()
    assert bench.answers.values(call) == [float(number) for number in range(6)]


def test_the_fit_learns_from_whole_batches_only(bench: Bench) -> None:
    model = bench.serve(cost_s=lambda rows: 0.010 + 0.002 * rows)
    for rows in (1, 4, 8, 2):
        bench.send(model, *[[1.0]] * rows)
        bench.finish_all()
    assert model.fit.predict_s(4) == pytest.approx(0.018, rel=0.05)
    before = model.fit.observations
    bench.send(model, [POISON], [1.0])
    bench.finish_all()
    assert model.fit.observations == before


def test_the_load_report_counts_what_waits_and_what_runs(bench: Bench) -> None:
    model = bench.serve(max_rows=4, cost_s=lambda _rows: 0.020)
    for rows in (1, 4):
        bench.send(model, *[[0.0]] * rows)
        bench.finish()
    bench.send(model, *[[1.0]] * 6)
    load = model.load(bench.loop.now, 7)
    assert (load.queue_rows, load.running_rows, load.sequence) == (2, 4, 7)
    assert load.busy_ms == pytest.approx(20.0, rel=0.1)
    assert model.load(bench.loop.now + 1.0, 8).busy_ms == 0.0
    bench.finish_all()
    assert model.load(bench.loop.now, 9).running_rows == 0


def test_the_counters_tell_rows_batches_and_waits(bench: Bench) -> None:
    model = bench.serve(max_rows=4, cost_s=lambda _rows: 0.5)
    bench.send(model, [0.0])
    bench.send(model, [1.0], [2.0, 3.0])
    bench.finish_all()
    counters = model.counters
    assert (counters.rows, counters.batches, counters.requests, counters.padded_rows) == (4, 2, 3, 1)
    assert counters.queue_s == pytest.approx(1.0)
    assert counters.infer_s == pytest.approx(0.5 + 2 * 0.5)


def test_everything_that_was_said_in_a_turn_is_flushed(bench: Bench) -> None:
    model = bench.serve(queue_rows=1)
    bench.send(model, [1.0])
    before = bench.answers.flushes
    bench.send(model, [2.0, 3.0])
    assert bench.answers.errors
    assert bench.answers.flushes > before
    before = bench.answers.flushes
    bench.finish()
    assert bench.answers.flushes > before


def test_an_executor_has_its_next_batch_before_the_last_ones_answers_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.serve()
    bench.send(model, [1.0])
    bench.send(model, [2.0])
    running_while_told: list[list[int]] = []
    tell = bench.answers.results

    def results(*arguments: object) -> None:
        running_while_told.append(sizes(bench))
        tell(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.answers, "results", results)
    bench.finish_all()
    assert running_while_told == [[1], []]


def test_rows_that_would_only_fill_a_padded_batch_wait_for_the_next(bench: Bench) -> None:
    model = bench.serve(max_rows=8)
    for rows in (1, 2, 4, 8):
        model.fit.observe(rows, 0.001 + 0.005 * rows)
    bench.send(model, [0.0])
    bench.submit(model, *([float(number)] for number in range(5)))
    bench.finish_all()
    assert bench.answers.batches == [(1, 1), (4, 4), (1, 1)]
