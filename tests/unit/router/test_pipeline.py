"""Split models: one replica for every stage, outputs put together, and whatever happens on the way, one answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shardline.core.cluster import PoolKey
from shardline.core.errors import DeadlineExceeded, Exhausted, MessageTooLarge, ModelFailed, PlanMismatch, Unavailable
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.wire.descriptions import Description, StageLink
from tests.unit.router.messages import infer, model, request, rows, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardline.core.models import ModelSpec
    from tests.unit.router.doubles import Caller, Cluster, Replica

CHAIN = (StageLink(0, ("x",), ()), StageLink(1, (), ("y",)))
"""x goes to stage 0, y comes from stage 1."""
FORK = (StageLink(0, ("x",), ("a",)), StageLink(1, ("z",), ()), StageLink(2, (), ("b",)))
"""x to stage 0, z to stage 1, both feed stage 2; a comes from stage 0, b from stage 2."""
FORKED = model([tensor("x"), tensor("z", dims=(1,))], [tensor("a"), tensor("b")])


def stage(
    index: int, graph: tuple[StageLink, ...] = CHAIN, spec: ModelSpec | None = None, **fields: object
) -> Description:
    spec = replace(spec or model(), stages=len(graph))
    described = Description(PoolKey(spec.name, spec.version, index), spec, plan="plan", stages=graph)
    return replace(described, **fields)  # type: ignore[arg-type]


def chain(cluster: Cluster, names: str = "abcd") -> list[Replica]:
    """Two replicas of each of two stages: a and b of the first, c and d of the second."""
    return [cluster.join(name, stage(number * 2 // len(names))) for number, name in enumerate(names)]


def sender(cluster: Cluster) -> tuple[Replica, int]:
    """The replica of the first stage that has the one call, and the call."""
    return cluster.holder()


def last(cluster: Cluster, sent: tuple[Replica, int]) -> Replica:
    """The replica of the last stage on the way of a call."""
    replica, call = sent
    hop = replica.calls[call].head.itinerary.hops[-1]
    (found,) = [item for item in cluster.replicas if item.member.info.id == hop.replica]
    return found


def result(name: str, value: float, call: int, width: int = 2, count: int = 1) -> link_pb.FromReplica:
    """An output of `count` rows of one value, as the last stage says it."""
    head = link_pb.ResultHead(model="m", version=1)
    head.outputs.add(name=name, datatype="FP32", dims=[width])
    column = rows(*[value] * count, width=width)
    receipt = link_pb.StageReceipt(stage=1, replica="r")
    return link_pb.FromReplica(
        results=[
            link_pb.ResultGroup(
                head=head.SerializeToString(), calls=[call], rows=[count], columns=[column], receipt=[receipt]
            )
        ]
    )


def outputs(caller: Caller) -> dict[str, bytes]:
    assert caller.response is not None
    names = [output.name for output in caller.response.outputs]
    return dict(zip(names, caller.response.raw_output_contents, strict=True))


def test_rows_go_to_the_first_stage_with_the_way_they_are_to_take(cluster: Cluster) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    head = first.calls[call].head
    assert (head.model, head.version, head.stage, head.itinerary.plan) == ("m", 1, 0, "plan")
    assert [(hop.stage, hop.link.partition(":")[0] == hop.replica) for hop in head.itinerary.hops] == [
        (0, True),
        (1, True),
    ]
    assert head.itinerary.hops[0].replica == first.member.info.id in "ab"
    assert head.itinerary.hops[1].replica in "cd"
    last(cluster, (first, call)).say(result("y", 7.0, call))
    assert outputs(caller) == {"y": rows(7.0)}
    cluster.assert_empty()


def test_a_model_is_served_only_while_every_stage_has_a_replica(cluster: Cluster) -> None:
    cluster.join("a", stage(0))
    (early,) = cluster.send(infer(1.0))
    assert isinstance(early.error, Unavailable)
    assert early.error.retry_after_s == 1.0
    second = cluster.join("b", stage(1))
    (taken,) = cluster.send(infer(1.0))
    assert not taken.answered
    second.link.fall()
    cluster.turn()
    (late,) = cluster.send(infer(1.0))
    assert isinstance(taken.error, Unavailable)
    assert isinstance(late.error, Unavailable)
    cluster.assert_empty()


def test_stages_of_different_plans_never_meet(cluster: Cluster) -> None:
    old = [cluster.join("a", stage(0)), cluster.join("b", stage(1))]
    cluster.join("c", stage(0, plan="new"))
    cluster.send(*(infer(1.0) for _ in range(10)))
    for replica in cluster.replicas:
        replica.read()
    ways = [call.head.itinerary for replica in old for call in replica.calls.values()]
    assert len(ways) == 10
    assert {(way.plan, *(hop.replica for hop in way.hops)) for way in ways} == {("plan", "a", "b")}


def test_the_new_plan_serves_when_it_is_the_stronger(cluster: Cluster) -> None:
    cluster.join("a", stage(0))
    cluster.join("b", stage(1))
    for name in "cd":
        cluster.join(name, stage(0, plan="new"))
    for name in "ef":
        cluster.join(name, stage(1, plan="new"))
    cluster.send(infer(1.0))
    first, call = sender(cluster)
    way = first.calls[call].head.itinerary
    assert (way.plan, {hop.replica for hop in way.hops} <= set("cdef")) == ("new", True)


def forked(cluster: Cluster, **fields: object) -> tuple[list[Replica], Caller]:
    stages = [cluster.join(name, stage(index, FORK, FORKED)) for index, name in enumerate("abc")]
    inputs = [("z", "FP32", [1, 1]), ("x", "FP32", [1, 2])]
    message = request(*inputs, raw=[rows(2.0, width=1), rows(1.0)], **fields)  # type: ignore[arg-type]
    (caller,) = cluster.send(message.SerializeToString())
    return stages, caller


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_every_stage_gets_its_own_inputs_and_the_answer_waits_for_all_outputs(
    cluster: Cluster, order: tuple[str, str]
) -> None:
    (one, two, three), caller = forked(cluster)
    (call,), (same,) = one.read(), two.read()
    assert call == same
    assert [item.name for item in one.calls[call].head.inputs] == ["x"]
    assert [item.name for item in two.calls[call].head.inputs] == ["z"]
    assert (one.calls[call].tensors, two.calls[call].tensors) == ((rows(1.0),), (rows(2.0, width=1),))
    assert three.read() == []
    senders = {"a": one, "b": three}
    senders[order[0]].say(result(order[0], 3.0, call))
    assert not caller.answered
    senders[order[1]].say(result(order[1], 4.0, call))
    assert outputs(caller) == {order[0]: rows(3.0), order[1]: rows(4.0)}
    assert list(outputs(caller)) == ["a", "b"]
    cluster.assert_empty()


def test_only_the_outputs_that_were_asked_for_are_answered(cluster: Cluster) -> None:
    (one, _, three), caller = forked(cluster, outputs=["b"])
    (call,) = one.read()
    one.say(result("a", 3.0, call))
    three.say(result("b", 4.0, call))
    assert outputs(caller) == {"b": rows(4.0)}


def test_an_answer_that_comes_twice_from_one_stage_does_not_count_as_another(cluster: Cluster) -> None:
    (one, _, three), caller = forked(cluster)
    (call,) = one.read()
    one.say(result("a", 3.0, call))
    one.say(result("a", 3.0, call))
    assert not caller.answered
    three.say(result("b", 4.0, call))
    assert outputs(caller) == {"a": rows(3.0), "b": rows(4.0)}
    cluster.assert_empty()


def test_receipts_come_in_the_order_of_the_stages(cluster: Cluster) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    sent = sender(cluster)
    message = result("y", 7.0, sent[1])
    message.results[0].receipt.add(stage=0, replica="a")
    last(cluster, sent).say(message)
    assert [part.split(";")[0] for part in caller.receipt.split("|")] == ["stage=0", "stage=1"]


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("reason", ["exhausted", "unavailable"])
def test_rows_that_a_stage_refuses_take_another_way(cluster: Cluster, where: int, reason: str) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    refusing = first if where == 0 else last(cluster, (first, call))
    refusing.refuse(call, reason=reason)
    cluster.turn()
    again, new = sender(cluster)
    way = [hop.replica for hop in again.calls[new].head.itinerary.hops]
    assert refusing.member.info.id not in way
    assert new != call
    last(cluster, (again, new)).say(result("y", 7.0, new))
    assert outputs(caller) == {"y": rows(7.0)}
    cluster.assert_empty()


@pytest.mark.parametrize("where", [0, 1])
def test_the_loss_of_any_stages_replica_costs_no_caller_an_error(cluster: Cluster, where: int) -> None:
    chain(cluster)
    callers = cluster.send(*(infer(1.0) for _ in range(10)))
    for replica in cluster.replicas:
        replica.read()
    lost = cluster.replicas[2 * where]
    lost.link.fall()
    cluster.turn()
    survivor = cluster.replicas[3]
    for replica in cluster.replicas[:2]:
        replica.read()
        for call in [call for call in replica.member.in_flight if call not in replica.cancelled]:
            way = replica.calls[call].head.itinerary.hops
            assert lost.member.info.id not in [hop.replica for hop in way]
            last(cluster, (replica, call)).say(result("y", 7.0, call))
    assert survivor.member.in_flight == {}
    assert all(outputs(caller) == {"y": rows(7.0)} for caller in callers)
    cluster.assert_empty()


def test_the_first_stage_is_told_to_drop_what_takes_another_way(cluster: Cluster) -> None:
    chain(cluster)
    cluster.send(infer(1.0))
    first, call = sender(cluster)
    last(cluster, (first, call)).refuse(call, reason="exhausted")
    cluster.turn()
    first.read()
    assert call in first.cancelled


@pytest.mark.parametrize(
    ("reason", "kind"), [("model_failed", ModelFailed), ("plan_mismatch", PlanMismatch), ("deadline", DeadlineExceeded)]
)
def test_what_no_other_way_can_better_is_the_answer(cluster: Cluster, reason: str, kind: type[Exception]) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    sent = sender(cluster)
    last(cluster, sent).refuse(sent[1], reason=reason)
    assert isinstance(caller.error, kind)
    cluster.assert_empty()


def test_a_late_answer_of_a_way_that_was_left_is_discarded(cluster: Cluster) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    slow = last(cluster, (first, call))
    first.refuse(call, reason="exhausted")
    cluster.turn()
    slow.say(result("y", 1.0, call))
    assert not caller.answered
    again = sender(cluster)
    last(cluster, again).say(result("y", 7.0, again[1]))
    assert outputs(caller) == {"y": rows(7.0)}
    cluster.assert_empty()


def test_a_stage_that_cannot_reach_the_next_is_given_time_and_another_way(cluster: Cluster) -> None:
    chain(cluster)
    waiting: list[Callable[[], None]] = []
    cluster.dispatcher._delay = lambda _seconds, call: waiting.append(call)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    first.refuse(call, reason="next_stage")
    cluster.turn()
    assert not caller.answered
    (resume,) = waiting
    resume()
    cluster.turn()
    again = sender(cluster)
    last(cluster, again).say(result("y", 7.0, again[1]))
    assert outputs(caller) == {"y": rows(7.0)}
    cluster.assert_empty()


def test_a_call_that_is_cancelled_while_it_waits_for_another_way_is_not_sent(cluster: Cluster) -> None:
    chain(cluster)
    waiting: list[Callable[[], None]] = []
    cluster.dispatcher._delay = lambda _seconds, call: waiting.append(call)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    first.refuse(call, reason="next_stage")
    assert waiting
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    for resume in waiting:
        resume()
    cluster.assert_empty()
    assert [replica.wanted for replica in cluster.replicas if replica is not first] == [[], [], []]


def test_a_next_stage_that_stays_away_ends_in_an_error(cluster: Cluster) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    for _ in range(50):
        if caller.answered:
            break
        first, call = sender(cluster)
        first.refuse(call, reason="next_stage", message="cannot be reached", retry_after_ms=500)
        cluster.turn()
    assert isinstance(caller.error, Unavailable)
    assert caller.error.retry_after_s == 0.5
    cluster.assert_empty()


def test_a_cancellation_reaches_every_stage_on_the_way(cluster: Cluster) -> None:
    chain(cluster)
    (caller,) = cluster.send(infer(1.0))
    first, call = sender(cluster)
    second = last(cluster, (first, call))
    assert caller.request is not None
    cluster.dispatcher.cancel(caller.request)
    cluster.turn()
    for replica in (first, second):
        replica.read()
        assert replica.cancelled == [call]
    second.say(result("y", 1.0, call))
    assert not caller.answered
    cluster.assert_empty()


def test_a_deadline_that_passes_names_the_stages_that_had_the_rows(cluster: Cluster) -> None:
    chain(cluster, "ab")
    caller = cluster.submit(infer(1.0), 0.1)
    cluster.turn()
    cluster.clock.now += 1.0
    cluster.dispatcher.sweep(cluster.clock.now)
    assert isinstance(caller.error, DeadlineExceeded)
    assert "at a, b" in caller.error.message
    cluster.assert_empty()


@pytest.mark.parametrize(("asked", "sizes"), [(2, [2, 2, 2]), (4, [3, 3]), (99, [6])])
def test_a_request_is_cut_into_micro_batches_and_put_together(cluster: Cluster, asked: int, sizes: list[int]) -> None:
    cluster.join("a", stage(0, micro_batch_rows=asked))
    end = cluster.join("b", stage(1, micro_batch_rows=asked))
    (caller,) = cluster.send(infer(*range(6)))
    first = cluster.replicas[0]
    calls = first.read()
    assert [first.calls[call].rows for call in calls] == sizes
    for number, call in reversed(list(enumerate(calls))):
        end.say(result("y", float(number), call, count=sizes[number]))
    expected = b"".join(rows(*[float(number)] * size) for number, size in enumerate(sizes))
    assert outputs(caller) == {"y": expected}
    cluster.assert_empty()


def test_rows_in_flight_are_bounded_by_what_the_smallest_stage_can_hold(cluster: Cluster) -> None:
    cluster.join("a", stage(0))
    cluster.join("b", stage(1, spec=model(queue_rows=10)))
    callers = cluster.send(infer(*range(6)), infer(*range(4)), infer(1.0))
    assert [type(caller.error) for caller in callers] == [type(None), type(None), Exhausted]
    assert "10 of 10 rows are in flight" in str(callers[2].error)


def test_a_request_that_no_stage_can_ever_hold_is_not_told_to_try_again(cluster: Cluster) -> None:
    cluster.join("a", stage(0))
    cluster.join("b", stage(1, spec=model(queue_rows=10)))
    (caller,) = cluster.send(infer(*range(11)))
    assert isinstance(caller.error, MessageTooLarge)
    assert "11 rows, the limit is 10" in caller.error.message
    assert caller.error.retry_after_s is None


def test_each_stage_is_chosen_by_its_own_load(cluster: Cluster) -> None:
    replicas = chain(cluster)
    replicas[0].report("m:1/0", queue_rows=1000)
    replicas[3].report("m:1/1", queue_rows=1000)
    cluster.send(*(infer(1.0) for _ in range(10)))
    sent = [(replica, call) for replica in replicas[:2] for call in replica.read()]
    ways = {tuple(hop.replica for hop in replica.calls[call].head.itinerary.hops) for replica, call in sent}
    assert ways == {("b", "c")}


def test_a_stage_is_told_how_many_rows_are_on_their_way(cluster: Cluster) -> None:
    first, end = cluster.join("a", stage(0)), cluster.join("b", stage(1))
    cluster.send(infer(1.0), infer(2.0))
    call = first.wanted[0]
    assert first.in_flight == [2]
    end.say(result("y", 7.0, call))
    cluster.send(infer(4.0))
    assert first.wanted
    assert first.in_flight == [2, 2]


def test_a_replica_of_whole_models_is_not_told_so(cluster: Cluster) -> None:
    replica = cluster.join("a")
    cluster.send(infer(1.0))
    assert replica.wanted
    assert replica.in_flight == [0]
