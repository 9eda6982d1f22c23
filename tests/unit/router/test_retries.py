"""What was not executed runs elsewhere, while that can help; whoever asked for it hears of it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.cluster import ReplicaState
from shardline.core.errors import InvalidRequest, NotFound, ServingError, Status, Unavailable, VersionGone, by_reason
from tests.unit.router.doubles import BOUNDS, Cluster
from tests.unit.router.messages import infer, model, tensor

if TYPE_CHECKING:
    from tests.unit.router.doubles import Replica

RETRYABLE = ["exhausted", "unavailable"]
FINAL = ["invalid", "shape", "model_failed", "deadline", "plan_mismatch", "message_too_large", "internal"]


def other(cluster: Cluster, replica: Replica) -> Replica:
    (found,) = [item for item in cluster.replicas if item is not replica]
    return found


@pytest.mark.parametrize("reason", RETRYABLE)
def test_rows_that_a_replica_refuses_run_on_another(cluster: Cluster, reason: str) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    replica, call = cluster.holder()
    replica.refuse(call, reason=reason)
    cluster.turn()
    second, again = cluster.holder()
    assert second is other(cluster, replica)
    second.answer(again)
    assert caller.rows() == [1.0]
    assert cluster.ledger.count("retried") == 1
    cluster.assert_empty()


@pytest.mark.parametrize("reason", RETRYABLE)
def test_a_refusal_by_every_replica_reaches_the_caller_with_its_hint(cluster: Cluster, reason: str) -> None:
    replicas = [cluster.join(name) for name in "abc"]
    (caller,) = cluster.send(infer(1.0))
    for _ in replicas:
        replica, call = cluster.holder()
        assert not caller.answered
        replica.refuse(call, reason=reason, message="queue is full", retry_after_ms=250)
        cluster.turn()
    assert caller.error is not None
    assert (type(caller.error), caller.error.message) == (by_reason()[reason], "queue is full")
    assert caller.error.retry_after_s == 0.25
    assert sum(len(replica.calls) for replica in replicas) == 3
    cluster.assert_empty()


@pytest.mark.parametrize("reason", FINAL)
def test_a_refusal_that_no_replica_can_better_is_the_answer(cluster: Cluster, reason: str) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    replica, call = cluster.holder()
    replica.refuse(call, reason=reason, message="why")
    cluster.turn()
    assert caller.error is not None
    assert (type(caller.error), caller.error.message, caller.error.retry_after_s) == (by_reason()[reason], "why", None)
    assert other(cluster, replica).wanted == []
    cluster.assert_empty()


def test_a_reason_that_nobody_knows_is_an_internal_error(cluster: Cluster) -> None:
    cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    replica, call = cluster.holder()
    replica.refuse(call, reason="from_the_future", message="odd")
    assert caller.error is not None
    assert (caller.error.status, caller.error.message) == (Status.INTERNAL, "odd")


def test_a_failure_is_its_own_callers_only(cluster: Cluster) -> None:
    replica = cluster.join("a")
    good, bad, fine = cluster.send(infer(1.0), infer(2.0), infer(3.0))
    calls = replica.read()
    replica.refuse(calls[1], reason="model_failed")
    replica.answer(calls[0], calls[2])
    assert (good.rows(), fine.rows()) == ([1.0], [3.0])
    assert bad.error is not None


def test_one_failed_part_fails_the_request_once_and_takes_the_rest_back(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(*range(24)))
    sent = [(replica, call) for replica in cluster.replicas for call in replica.read()]
    (first, failed), (second, answered), (third, running) = sent
    second.answer(answered)
    first.refuse(failed, reason="model_failed")
    third.answer(running)
    cluster.turn()
    assert caller.error is not None
    third.read()
    assert running in third.cancelled
    assert cluster.ledger.count("failed") == 1
    cluster.assert_empty()


def test_a_part_that_is_refused_is_retried_alone(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(*range(16)))
    sent = [(replica, call) for replica in cluster.replicas for call in replica.read()]
    replica, call = sent[0]
    replica.refuse(call, reason="exhausted")
    cluster.turn()
    (again,) = other(cluster, replica).read()
    other(cluster, replica).answer(again)
    last, kept = sent[1]
    assert not caller.answered
    last.answer(kept)
    assert caller.rows() == [float(number) for number in range(16)]
    cluster.assert_empty()


def test_retries_are_a_bounded_share_of_the_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, bounds=BOUNDS.__class__(4096, 1 << 20, 1 << 16, retry_ratio=0.1))
    cluster.join("a")
    cluster.join("b")
    asked = 600
    for _ in range(asked):
        (caller,) = cluster.send(infer(1.0))
        replica, call = cluster.holder()
        replica.refuse(call, reason="exhausted")
        cluster.turn()
        if not caller.answered:
            replica, call = cluster.holder()
            replica.answer(call)
    retries = cluster.ledger.count("retried")
    assert 0.1 * asked <= retries <= 0.1 * asked + 256
    assert cluster.ledger.count("failed") == asked - retries
    cluster.assert_empty()


def test_the_rows_of_a_lost_replica_run_on_another(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    callers = cluster.send(*(infer(float(number)) for number in range(20)))
    for replica in cluster.replicas:
        replica.read()
    lost = cluster.replicas[0]
    lost.link.fall()
    cluster.turn()
    survivor = cluster.replicas[1]
    survivor.answer(*[call for call in survivor.wanted if call in survivor.member.in_flight])
    assert [caller.rows() for caller in callers] == [[float(number)] for number in range(20)]
    cluster.assert_empty()


def test_the_late_answer_of_a_replica_that_was_thought_lost_is_discarded(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    slow, call = cluster.holder()
    slow.link.fall()
    cluster.turn()
    slow.link.rise()
    slow.answer(call)
    assert not caller.answered
    fast, again = cluster.holder()
    fast.answer(again)
    slow.answer(call)
    assert caller.rows() == [1.0]
    assert cluster.ledger.count("late") == 2
    cluster.assert_empty()


def test_losing_replicas_is_not_charged_to_the_retry_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, bounds=BOUNDS.__class__(4096, 1 << 22, 1 << 16, retry_ratio=0.0))
    cluster.join("a")
    cluster.join("b")
    callers = cluster.send(*(infer(float(number)) for number in range(1000)))
    cluster.replicas[0].link.fall()
    cluster.turn()
    survivor = cluster.replicas[1]
    survivor.answer(*survivor.wanted)
    assert all(caller.rows() == [float(number)] for number, caller in enumerate(callers))


def test_losing_the_last_replica_is_unavailable_with_a_hint(cluster: Cluster) -> None:
    replica = cluster.join("a")
    callers = cluster.send(infer(1.0), infer(*range(20)))
    replica.link.fall()
    cluster.turn()
    for caller in callers:
        assert isinstance(caller.error, Unavailable)
        assert caller.error.retry_after_s == 1.0
        assert "'m'" in caller.error.message
    cluster.assert_empty()


def test_a_replica_that_left_gives_its_rows_back(cluster: Cluster) -> None:
    cluster.join("a")
    cluster.join("b")
    (caller,) = cluster.send(infer(1.0))
    replica, _ = cluster.holder()
    cluster.leave(replica)
    cluster.turn()
    survivor, again = cluster.holder()
    survivor.answer(again)
    assert caller.rows() == [1.0]
    assert replica.link.closed


def test_rows_that_wait_for_the_turn_to_end_are_not_lost_with_the_link(cluster: Cluster) -> None:
    first = cluster.join("a")
    caller = cluster.submit(infer(1.0))
    second = cluster.join("b")
    first.link.fall()
    cluster.turn()
    assert first.calls == {}
    second.answer(*second.read())
    assert caller.rows() == [1.0]
    cluster.assert_empty()


@pytest.mark.parametrize("state", [ReplicaState.DRAINING, ReplicaState.STARTING])
def test_a_replica_that_is_not_ready_is_not_chosen(cluster: Cluster, state: ReplicaState) -> None:
    idle = cluster.join("a", state=state)
    ready = cluster.join("b")
    cluster.send(*(infer(1.0) for _ in range(20)))
    assert idle.read() == []
    assert len(ready.read()) == 20


def test_a_replica_that_drains_may_end_what_it_has(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    cluster.announce(replica, ReplicaState.DRAINING)
    replica.answer(*replica.read())
    assert caller.rows() == [1.0]
    (late,) = cluster.send(infer(2.0))
    assert isinstance(late.error, Unavailable)


def test_a_version_that_is_gone_is_chosen_anew(cluster: Cluster) -> None:
    replica = cluster.join("a", model(version=1))
    callers = cluster.send(infer(1.0), infer(*range(20)))
    old = replica.read()
    cluster.serve(replica, model(version=2))
    replica.refuse(*old, reason="version_gone")
    cluster.turn()
    new = replica.read()
    assert {replica.calls[call].head.version for call in new} == {2}
    replica.answer(*old)
    assert not any(caller.answered for caller in callers)
    replica.answer(*new)
    assert [caller.rows() for caller in callers] == [[1.0], [float(number) for number in range(20)]]
    assert {caller.response.model_version for caller in callers if caller.response} == {"2"}
    cluster.assert_empty()


def test_a_cut_request_is_never_answered_by_two_versions(cluster: Cluster) -> None:
    replica = cluster.join("a", model(version=1))
    (caller,) = cluster.send(infer(*range(16)))
    first, second = replica.read()
    replica.answer(first)
    cluster.serve(replica, model(version=2))
    replica.refuse(second, reason="version_gone")
    cluster.turn()
    new = replica.read()
    assert len(new) == 2
    replica.answer(*new)
    assert caller.rows() == [float(number) for number in range(16)]
    assert caller.response is not None
    assert caller.response.model_version == "2"


def test_what_was_sent_of_a_request_that_is_begun_anew_is_taken_back(cluster: Cluster) -> None:
    replica = cluster.join("a", model(version=1))
    (caller,) = cluster.send(infer(*range(16)))
    first, second = replica.read()
    cluster.serve(replica, model(version=2))
    replica.refuse(first, reason="version_gone")
    cluster.turn()
    new = replica.read()
    assert (len(new), replica.cancelled) == (2, [second])
    replica.answer(second)
    replica.answer(*new)
    assert caller.rows() == [float(number) for number in range(16)]
    cluster.assert_empty()


def test_a_cut_request_whose_version_is_lost_is_begun_anew_once(cluster: Cluster) -> None:
    old = cluster.join("a", model(version=1))
    (caller,) = cluster.send(infer(*range(24)))
    assert len(old.read()) == 3
    new = cluster.join("b", model(version=2))
    old.link.fall()
    cluster.turn()
    calls = new.read()
    assert len(calls) == 3
    new.answer(*calls)
    assert caller.rows() == [float(number) for number in range(24)]
    cluster.assert_empty()


def test_a_version_that_was_asked_for_by_number_is_not_replaced_by_another(cluster: Cluster) -> None:
    replica = cluster.join("a", model(version=1))
    (caller,) = cluster.send(infer(1.0, model_version="1"))
    old = replica.read()
    cluster.serve(replica, model(version=2))
    replica.refuse(*old, reason="version_gone")
    cluster.turn()
    assert isinstance(caller.error, NotFound)
    assert "served versions: 2" in caller.error.message
    cluster.assert_empty()


def test_a_model_that_is_gone_altogether_is_not_found(cluster: Cluster) -> None:
    replica = cluster.join("a", model(), model(name="n"))
    (caller,) = cluster.send(infer(1.0))
    old = replica.read()
    cluster.serve(replica, model(name="n"))
    replica.refuse(*old, reason="version_gone")
    cluster.turn()
    assert isinstance(caller.error, NotFound)
    assert cluster.dispatcher.requests_in_flight == 0


@pytest.mark.parametrize(
    "changed",
    [model([tensor("x", dims=(3,))], version=2), model(outputs=[tensor("z")], version=2)],
    ids=["inputs", "outputs"],
)
def test_a_request_that_does_not_fit_the_new_version_is_told_so(cluster: Cluster, changed: object) -> None:
    replica = cluster.join("a", model(version=1))
    (caller,) = cluster.send(infer(1.0, outputs=["y"]))
    old = replica.read()
    cluster.serve(replica, changed)  # type: ignore[arg-type]
    replica.refuse(*old, reason="version_gone")
    cluster.turn()
    assert isinstance(caller.error, InvalidRequest)
    assert "changed its signature" in caller.error.message
    cluster.assert_empty()


def test_a_replica_that_unloaded_the_version_does_not_keep_its_rows_from_one_that_has_it(cluster: Cluster) -> None:
    stale = cluster.join("a")
    fresh = cluster.join("b")
    callers = cluster.send(*(infer(float(number)) for number in range(40)))
    for _ in range(20):
        gone = [call for call in stale.wanted if call in stale.member.in_flight]
        if not gone:
            break
        stale.refuse(*gone, reason="version_gone")
        cluster.turn()
    fresh.answer(*[call for call in fresh.wanted if call in fresh.member.in_flight])
    assert [caller.error for caller in callers] == [None] * 40
    assert [caller.rows() for caller in callers] == [[float(number)] for number in range(40)]


def test_a_version_that_stays_gone_ends_in_an_error(cluster: Cluster) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    for _ in range(100):
        if caller.answered:
            break
        replica.refuse(*replica.read(), reason="version_gone", message="gone")
        cluster.turn()
    assert isinstance(caller.error, VersionGone)
    cluster.assert_empty()


def test_every_reason_is_either_retried_or_final() -> None:
    handled = {"version_gone", "next_stage", "not_found", "cancelled", "unsupported", "model_rejected"}
    # Other parts of the product, where they are loaded, add errors of their own that never cross a link.
    crossing = {reason: kind for reason, kind in by_reason().items() if kind.__module__ == ServingError.__module__}
    assert set(crossing) == {*RETRYABLE, *FINAL, *handled}
    assert {reason for reason, kind in crossing.items() if kind.retryable} <= {*RETRYABLE, "version_gone", "next_stage"}
    assert issubclass(by_reason()["internal"], ServingError)
