"""What is not taken is refused at once and costs nothing; what was taken is given back, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.errors import DeadlineExceeded, Exhausted, MessageTooLarge, NotFound, Unavailable
from tests.unit.router.doubles import BOUNDS, Cluster
from tests.unit.router.messages import infer, model, request, rows, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.router.doubles import Caller, Replica

LIMIT = BOUNDS.rows_in_flight


def test_rows_in_flight_are_bounded_by_model(cluster: Cluster) -> None:
    cluster.join("a", model(), model(name="n"))
    callers = cluster.send(*(infer(1.0) for _ in range(LIMIT)))
    (refused,) = cluster.send(infer(1.0))
    assert isinstance(refused.error, Exhausted)
    assert f"{LIMIT} of {LIMIT} rows are in flight, 1 more were refused" in refused.error.message
    assert refused.error.retry_after_s == 0.1
    assert not any(caller.answered for caller in callers)
    (other,) = cluster.send(infer(1.0, model_name="n"))
    assert not other.answered


def test_a_request_is_admitted_whole_or_not_at_all(cluster: Cluster) -> None:
    replica = cluster.join("a")
    cluster.send(infer(*range(LIMIT - 2)))
    before = len(replica.read())
    (refused,) = cluster.send(infer(1.0, 2.0, 3.0))
    assert isinstance(refused.error, Exhausted)
    assert cluster.rows_in_flight() == LIMIT - 2
    assert (before, replica.read()) == (8, [])


def test_more_rows_than_may_ever_be_in_flight_need_another_setting_not_another_try(cluster: Cluster) -> None:
    cluster.join("a")
    (caller,) = cluster.send(infer(*range(LIMIT + 1)))
    assert isinstance(caller.error, MessageTooLarge)
    assert f"{LIMIT + 1} rows, the limit is {LIMIT}" in caller.error.message
    assert "SHARDLINE_ROWS_IN_FLIGHT" in caller.error.message
    assert caller.error.retry_after_s is None


def test_bytes_in_flight_are_bounded_over_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    message = infer(1.0)
    cluster = Cluster(monkeypatch, BOUNDS.__class__(64, 3 * len(message), 1 << 16, 0.1))
    replica = cluster.join("a", model(), model(name="n"))
    cluster.send(message, infer(1.0, model_name="n"), message)
    (refused,) = cluster.send(message)
    assert isinstance(refused.error, Exhausted)
    assert f"{3 * len(message)} bytes are in flight, {len(message)} more were refused" in refused.error.message
    replica.answer(replica.read()[0])
    (taken,) = cluster.send(message)
    assert not taken.answered


def test_a_message_above_the_limit_names_both_sizes_and_the_setting(cluster: Cluster) -> None:
    cluster.join("a")
    message = bytes(BOUNDS.max_message_bytes + 1)
    (caller,) = cluster.send(message)
    assert isinstance(caller.error, MessageTooLarge)
    for text in (str(len(message)), str(BOUNDS.max_message_bytes), "SHARDLINE_MAX_MESSAGE_BYTES"):
        assert text in caller.error.message


def test_a_model_without_a_ready_replica_is_unavailable_with_a_hint(cluster: Cluster) -> None:
    cluster.join("a", up=False)
    (caller,) = cluster.send(infer(1.0))
    assert isinstance(caller.error, Unavailable)
    assert caller.error.retry_after_s == 1.0


def test_an_unknown_model_is_not_found_by_name(cluster: Cluster) -> None:
    (early,) = cluster.send(infer(1.0))
    assert isinstance(early.error, NotFound)
    assert "known models: none yet" in early.error.message
    cluster.join("a", *(model(name=f"n{number:02}") for number in range(12)))
    (late,) = cluster.send(infer(1.0))
    assert isinstance(late.error, NotFound)
    assert "'m'" in late.error.message
    assert "n00, n01" in late.error.message
    assert "and 2 more" in late.error.message


def answered(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    replica.answer(*replica.read())


def failed(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    replica.refuse(*replica.read(), reason="model_failed")


def cancelled(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)


def late(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    cluster.clock.now += 1000.0
    cluster.dispatcher.sweep(cluster.clock.now)


def lost(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    replica.link.fall()


def unloaded(cluster: Cluster, replica: Replica, caller: Caller) -> None:
    cluster.serve(replica, model(version=2))
    replica.refuse(*replica.read(), reason="version_gone")
    cluster.turn()
    replica.answer(*replica.read())


ENDINGS = [answered, failed, cancelled, late, lost, unloaded]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@pytest.mark.parametrize("count", [1, 20])
def test_every_ending_gives_rows_and_bytes_back_once(
    cluster: Cluster, count: int, ending: Callable[[Cluster, Replica, Caller], None]
) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(*range(count)))
    assert cluster.rows_in_flight() == count
    assert cluster.dispatcher.bytes_in_flight > 0
    ending(cluster, replica, caller)
    cluster.turn()
    cluster.assert_empty()
    for other in (late, cancelled):  # nothing is left to end a second time
        other(cluster, replica, caller)
    cluster.assert_empty()
    assert caller.answered or ending is cancelled


# --------------------------------------------------------------------------------------------------- deadlines


def deadline_ms(cluster: Cluster, message: bytes, timeout_s: float | None = None) -> int:
    """What a replica is told of a request's deadline."""
    replica = cluster.replicas[0]
    cluster.submit(message, timeout_s)
    cluster.turn()
    (call,) = replica.read()
    return replica.calls[call].deadline_ms


def with_timeout(microseconds: int) -> bytes:
    parameters = {"timeout": microseconds}
    return request(("x", "FP32", [1, 2]), raw=[rows(1.0)], parameters=parameters).SerializeToString()


@pytest.mark.parametrize(
    ("message", "timeout_s", "default_s", "expected_ms"),
    [
        (infer(1.0), 0.25, 7.0, 250),
        (with_timeout(500_000), 0.25, 7.0, 250),
        (with_timeout(500_000), None, 7.0, 500),
        (with_timeout(0), None, 7.0, 7000),
        (infer(1.0), None, 7.0, 7000),
        (infer(1.0), None, 0.0, 60_000),
    ],
)
def test_the_deadline_is_the_callers_then_the_parameter_then_the_models_then_the_routers(
    cluster: Cluster, message: bytes, timeout_s: float | None, default_s: float, expected_ms: int
) -> None:
    cluster.join("a", model(default_timeout_s=default_s))
    assert deadline_ms(cluster, message, timeout_s) == pytest.approx(expected_ms, abs=1)


@pytest.mark.parametrize("timeout_s", [1e7, 1e9, 9.2e18, float("inf")])
def test_a_deadline_in_years_does_not_harm_its_neighbours(cluster: Cluster, timeout_s: float) -> None:
    replica = cluster.join("a")
    near = cluster.submit(infer(1.0), 1.0)
    far = cluster.submit(infer(2.0), timeout_s)
    cluster.turn()
    calls = replica.read()
    assert replica.calls[calls[0]].deadline_ms == pytest.approx(1000, abs=1)
    assert replica.calls[calls[1]].deadline_ms > 1e9
    replica.answer(*calls)
    assert (near.rows(), far.rows()) == ([1.0], [2.0])


@pytest.mark.parametrize("microseconds", [(1 << 63) - 1, 10**14])
def test_a_timeout_parameter_in_years_is_taken(cluster: Cluster, microseconds: int) -> None:
    cluster.join("a")
    assert deadline_ms(cluster, with_timeout(microseconds)) > 1e9


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_request_whose_deadline_has_passed_is_not_sent(cluster: Cluster, timeout_s: float) -> None:
    replica = cluster.join("a")
    caller = cluster.submit(infer(1.0), timeout_s)
    cluster.turn()
    assert isinstance(caller.error, DeadlineExceeded)
    assert replica.read() == []
    cluster.assert_empty()


def test_a_passed_deadline_is_told_with_where_the_time_went(cluster: Cluster) -> None:
    replica = cluster.join("a")
    early = cluster.submit(infer(*range(16)), 0.25)
    later = cluster.submit(infer(1.0), 0.5)
    cluster.turn()
    calls = replica.read()
    replica.answer(calls[0])
    cluster.clock.now += 0.2
    cluster.dispatcher.sweep(cluster.clock.now)
    assert not early.answered
    cluster.clock.now += 0.1
    cluster.dispatcher.sweep(cluster.clock.now)
    assert isinstance(early.error, DeadlineExceeded)
    assert "300 ms; 1 of 2 parts were still at a" in early.error.message
    assert not later.answered
    cluster.turn()
    replica.read()
    assert replica.cancelled == [calls[1]]
    cluster.clock.now += 0.25
    cluster.dispatcher.sweep(cluster.clock.now)
    assert isinstance(later.error, DeadlineExceeded)
    cluster.assert_empty()


def test_an_answer_after_the_deadline_is_discarded(cluster: Cluster) -> None:
    replica = cluster.join("a")
    caller = cluster.submit(infer(1.0), 0.1)
    cluster.turn()
    cluster.clock.now += 1.0
    cluster.dispatcher.sweep(cluster.clock.now)
    replica.answer(*replica.read())
    assert isinstance(caller.error, DeadlineExceeded)
    assert cluster.ledger.count("late") == 1


def test_a_retry_does_not_begin_a_new_deadline(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    caller = cluster.submit(infer(1.0), 1.0)
    cluster.turn()
    replica, call = cluster.holder()
    cluster.clock.now += 0.75
    replica.refuse(call, reason="exhausted")
    cluster.turn()
    second, again = cluster.holder()
    assert second.calls[again].deadline_ms == pytest.approx(250, abs=1)
    cluster.clock.now += 0.25
    cluster.dispatcher.sweep(cluster.clock.now)
    assert isinstance(caller.error, DeadlineExceeded)
    assert f"at {second.member.info.id}" in caller.error.message


# -------------------------------------------------------------------------------------------------- cancellation


def test_a_call_that_is_cancelled_in_the_same_turn_is_never_sent(cluster: Cluster) -> None:
    replica = cluster.join("a")
    stays, goes = cluster.submit(infer(1.0)), cluster.submit(infer(2.0))
    assert goes.request is not None
    cluster.dispatcher.cancel(goes.request)
    cluster.turn()
    (call,) = replica.read()
    replica.answer(call)
    assert (stays.rows(), goes.answered) == ([1.0], False)
    assert replica.cancelled == []
    cluster.assert_empty()


def test_a_turn_in_which_all_calls_were_cancelled_sends_nothing(cluster: Cluster) -> None:
    replica = cluster.join("a")
    caller = cluster.submit(infer(*range(20)))
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    replica.read()
    assert replica.messages == 0


def test_the_cancellation_of_a_sent_call_reaches_every_replica_that_has_a_part(cluster: Cluster) -> None:
    replicas = [cluster.join("a"), cluster.join("b")]
    (caller,) = cluster.send(infer(*range(32)))
    sent = {replica.member.info.id: replica.read() for replica in replicas}
    assert all(sent.values())
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    for replica in replicas:
        replica.read()
        assert sorted(replica.cancelled) == sorted(sent[replica.member.info.id])
        replica.answer(*sent[replica.member.info.id])
    assert not caller.answered
    assert cluster.ledger.count("cancelled") == 1
    cluster.assert_empty()


@pytest.mark.parametrize("reason", ["exhausted", "version_gone"])
def test_a_call_that_is_cancelled_while_it_goes_elsewhere_is_not_executed(cluster: Cluster, reason: str) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    replica, call = cluster.holder()
    replica.refuse(call, reason=reason)
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    assert [item.wanted for item in cluster.replicas if item is not replica] == [[]]
    assert not caller.answered
    cluster.assert_empty()


def test_a_call_that_was_cancelled_is_not_retried_when_its_replica_is_lost(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    replica, _ = cluster.holder()
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    replica.link.fall()
    cluster.turn()
    assert [item.wanted for item in cluster.replicas if item is not replica] == [[]]
    assert not caller.answered


def test_a_cancellation_after_the_answer_changes_nothing(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    replica.answer(*replica.read())
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    replica.read()
    assert replica.cancelled == []
    cluster.assert_empty()


def test_a_caller_that_cancels_does_not_touch_its_neighbours(cluster: Cluster) -> None:
    replica = cluster.join("a", model([tensor("x", dims=(-1,))]))
    callers = cluster.send(*(infer(float(number)) for number in range(8)))
    calls = replica.read()
    for caller in callers[::2]:
        assert caller.request is not None
        cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    replica.read()
    assert replica.cancelled == calls[::2]
    replica.answer(*calls[1::2])
    assert [caller.rows() for caller in callers[1::2]] == [[1.0], [3.0], [5.0], [7.0]]
    cluster.assert_empty()
