"""What goes out to a replica and when: groups, priorities, small rows that are held, and what a peer may not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardline.core.cluster import PoolKey
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.wire.link import PROTOCOL
from tests.unit.router.messages import infer, model, request, rows, tensor

if TYPE_CHECKING:
    from shardline.core.models import ModelSpec
    from tests.unit.router.doubles import Cluster, Replica

LARGE = model([tensor("x", dims=(4096,))])
"""Rows of 16 KiB, which travel as frames of their own."""


def large(value: float) -> bytes:
    return request(("x", "FP32", [1, 4096]), raw=[rows(value, width=4096)]).SerializeToString()


def with_priority(value: float, priority: int) -> bytes:
    parameters = {"priority": priority}
    return request(("x", "FP32", [1, 2]), raw=[rows(value)], parameters=parameters).SerializeToString()


def fast(cluster: Cluster, *served: ModelSpec) -> Replica:
    """A replica whose model is known to take a millisecond."""
    replica = cluster.join("a", *served)
    replica.report(alpha_ms=0.5, beta_ms=0.1)
    return replica


def test_small_rows_travel_joined_and_large_ones_as_they_came(cluster: Cluster) -> None:
    replica = cluster.join("a", LARGE, model(name="n"))
    cluster.submit(large(1.0))
    cluster.submit(infer(2.0, 3.0, model_name="n"))
    cluster.submit(large(4.0))
    cluster.turn()
    (header, frames) = replica.link.sent[0]
    message = link_pb.ToReplica.FromString(header)
    assert [len(group.columns) for group in message.groups] == [0, 1]
    assert [list(group.rows) for group in message.groups] == [[1, 1], [2]]
    assert [len(frame) for frame in frames] == [16384, 16384]


def test_calls_with_different_heads_go_in_groups_of_their_own(cluster: Cluster) -> None:
    replica = cluster.join("a", model(outputs=[tensor("y"), tensor("z")]))
    callers = cluster.send(infer(1.0, outputs=["y"]), infer(2.0, outputs=["z"]), infer(3.0, outputs=["y"]))
    calls = replica.read()
    assert [list(replica.calls[call].head.outputs) for call in calls] == [["y"], ["y"], ["z"]]
    assert replica.messages == 1
    replica.answer(*calls[:2])
    assert [caller.answered for caller in callers] == [True, False, True]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [([0, 0], [0, 0]), ([0, 1], [2, 1]), ([3, 0, 1], [3, 2, 1])],
)
def test_calls_that_ask_for_no_priority_have_the_models_default_beside_one_that_does(
    cluster: Cluster, asked: list[int], sent: list[int]
) -> None:
    replica = cluster.join("a", model(priority_levels=3, default_priority=2))
    cluster.send(*(with_priority(1.0, priority) for priority in asked))
    assert [replica.calls[call].priority for call in replica.read()] == sent


def test_small_rows_of_a_fast_model_are_held_while_two_messages_are_unanswered(cluster: Cluster) -> None:
    replica = fast(cluster)
    callers = [caller for number in range(6) for caller in cluster.send(infer(float(number)))]
    first, second = replica.read()
    assert replica.messages == 2
    replica.answer(first)
    cluster.turn()
    rest = replica.read()
    assert (len(rest), replica.messages) == (4, 3)
    replica.answer(second, *rest)
    assert [caller.rows() for caller in callers] == [[float(number)] for number in range(6)]
    cluster.assert_empty()


def test_a_message_is_answered_when_all_its_calls_are(cluster: Cluster) -> None:
    replica = fast(cluster)
    cluster.send(infer(1.0), infer(2.0))
    cluster.send(infer(3.0))
    first, second, third = replica.read()
    cluster.send(infer(4.0))
    replica.answer(first)
    cluster.turn()
    assert replica.read() == []
    replica.refuse(second, reason="model_failed")
    cluster.turn()
    assert len(replica.read()) == 1
    replica.answer(third)


def test_the_rows_of_a_slow_or_unknown_model_are_never_held(cluster: Cluster) -> None:
    replica = cluster.join("a")
    for _ in range(5):
        cluster.send(infer(1.0))
    assert len(replica.read()) == 5
    replica.report(alpha_ms=5.0, beta_ms=0.1)
    for _ in range(5):
        cluster.send(infer(1.0))
    assert len(replica.read()) == 5


def test_large_rows_are_never_held(cluster: Cluster) -> None:
    replica = fast(cluster, LARGE)
    for _ in range(5):
        cluster.send(large(1.0))
    assert len(replica.read()) == 5


def test_held_rows_that_are_cancelled_are_not_sent(cluster: Cluster) -> None:
    replica = fast(cluster)
    callers = [caller for number in range(5) for caller in cluster.send(infer(float(number)))]
    sent = replica.read()
    assert len(sent) == 2
    for caller in callers[2:4]:
        assert caller.request is not None
        cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    replica.answer(*sent)
    cluster.turn()
    (last,) = replica.read()
    assert replica.cancelled == []
    replica.answer(last)
    assert callers[4].rows() == [4.0]
    cluster.assert_empty()


def test_a_cancellation_is_not_held_with_the_rows(cluster: Cluster) -> None:
    replica = fast(cluster)
    callers = [caller for _ in range(3) for caller in cluster.send(infer(1.0))]
    first, _ = replica.read()
    assert callers[0].request is not None
    cluster.dispatcher.cancel(callers[0].request)
    cluster.turn()
    replica.read()
    assert replica.cancelled == [first]


def test_cancelled_calls_make_room_for_what_is_held(cluster: Cluster) -> None:
    replica = fast(cluster)
    callers = [caller for _ in range(3) for caller in cluster.send(infer(1.0))]
    replica.read()
    for caller in callers[:2]:
        assert caller.request is not None
        cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    (held,) = replica.read()
    replica.answer(held)
    assert callers[2].rows() == [1.0]
    cluster.assert_empty()


def test_held_rows_are_lost_with_their_replica_and_run_elsewhere(cluster: Cluster) -> None:
    replica = fast(cluster)
    callers = [caller for number in range(5) for caller in cluster.send(infer(float(number)))]
    other = cluster.join("b")
    replica.link.fall()
    cluster.turn()
    other.answer(*other.read())
    assert [caller.rows() for caller in callers] == [[float(number)] for number in range(5)]
    cluster.assert_empty()


def test_holding_begins_anew_after_a_loss(cluster: Cluster) -> None:
    replica = fast(cluster)
    for _ in range(4):
        cluster.send(infer(1.0))
    replica.link.fall()
    cluster.turn()
    replica.link.rise()
    replica.read()
    for _ in range(3):
        cluster.send(infer(1.0))
    first, _ = replica.read()
    replica.answer(first)
    cluster.turn()
    assert len(replica.read()) == 1


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xff",
        b"",
        link_pb.FromReplica(protocol=PROTOCOL + 1, refusals=[link_pb.Refusal(calls=range(1, 99))]).SerializeToString(),
    ],
    ids=["rubbish", "nothing", "another protocol"],
)
def test_a_peer_that_does_not_speak_our_protocol_is_not_obeyed(cluster: Cluster, header: bytes) -> None:
    replica = cluster.join("a")
    (caller,) = cluster.send(infer(1.0))
    replica.link.receive(b"", header, [])
    assert not caller.answered
    replica.answer(*replica.read())
    assert caller.rows() == [1.0]


def test_rows_go_where_fewer_are_in_flight(cluster: Cluster) -> None:
    busy, idle = cluster.join("a"), cluster.join("b", model(name="other"))
    cluster.send(*(infer(1.0) for _ in range(10)))
    cluster.serve(idle, model())
    cluster.send(*(infer(2.0) for _ in range(10)))
    assert (len(busy.read()), len(idle.read())) == (10, 10)


def test_rows_keep_off_a_replica_that_reports_a_long_queue(cluster: Cluster) -> None:
    crowded, free = cluster.join("a"), cluster.join("b")
    crowded.report(queue_rows=30, running_rows=10)
    cluster.send(*(infer(1.0) for _ in range(20)))
    assert (len(crowded.read()), len(free.read())) == (0, 20)


def test_an_old_report_is_not_believed(cluster: Cluster) -> None:
    crowded, other = cluster.join("a"), cluster.join("b")
    crowded.report(queue_rows=1000)
    cluster.clock.now += 1.0
    cluster.send(*(infer(1.0) for _ in range(20)))
    assert len(crowded.read()) == len(other.read()) == 10


def test_a_report_that_came_by_redis_counts_as_well(cluster: Cluster) -> None:
    crowded, free = cluster.join("a"), cluster.join("b")
    crowded.member.report(PoolKey("m", 1), 1000)
    cluster.send(*(infer(1.0) for _ in range(20)))
    assert (len(crowded.read()), len(free.read())) == (0, 20)


def test_a_report_of_one_model_does_not_keep_an_old_one_of_another_fresh(cluster: Cluster) -> None:
    one, other = (cluster.join(name, model(), model(name="n")) for name in "ab")
    one.report("m:1/0", queue_rows=1000)
    cluster.clock.now += 1.0
    one.report("n:1/0", queue_rows=1)
    cluster.send(*(infer(1.0) for _ in range(20)))
    assert len(one.read()) == len(other.read()) == 10
