"""What a replica takes from its link: defaults of priorities, and messages that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.core.cluster import PoolKey
from shardline.core.errors import Unavailable
from shardline.core.models import Batching, ModelSpec
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica import intake as intake_module
from shardline.replica.intake import Intake
from shardline.replica.join import Joins
from shardline.wire.link import PROTOCOL
from tests.unit.replica.doubles import VirtualLoop

if TYPE_CHECKING:
    from shardline.replica.chunk import Chunk

PEER = b"e-1"
BATCHING = Batching(max_rows=8, buckets=(8,), priority_levels=2, default_priority=2)


class Served:
    """As much of a served version as the intake looks at."""

    stage = None
    joins = None

    def __init__(self) -> None:
        self.spec = ModelSpec("m", 1, "onnx", (), (), BATCHING, b"", "")


class Listener:
    """A scheduler and answers that remember."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.refused: list[tuple[list[int], str]] = []
        self.cancelled: list[tuple[bytes, set[int]]] = []

    def express(self, served: object, chunk: Chunk) -> bool:
        return False

    def submit(self, _served: object, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def cancel(self, peer: bytes, calls: set[int]) -> None:
        self.cancelled.append((peer, calls))

    def pump(self) -> None:
        pass

    def refuse_peer(self, _peer: bytes, calls: list[int], error: Exception) -> None:
        self.refused.append((list(calls), str(error)))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def intake(listener: Listener) -> Intake:
    served: Any = Served()
    double: Any = listener
    return Intake(lambda pool: served if pool == PoolKey("m", 1) else None, double, double)


def head(model: str = "m") -> bytes:
    message = pb.RowHead(model=model, version=1)
    message.inputs.add(name="x", datatype="FP32", dims=[2])
    return message.SerializeToString()


def message(*groups: pb.RowGroup) -> bytes:
    return pb.ToReplica(protocol=PROTOCOL, groups=groups).SerializeToString()


def frame(rows: int, value: float = 1.0) -> bytes:
    return np.full((rows, 2), value, np.float32).tobytes()


def test_calls_without_priorities_have_the_models_default(intake: Intake, listener: Listener) -> None:
    intake.receive(PEER, message(pb.RowGroup(head=head(), calls=[1], rows=[1])), [frame(1)])
    intake.receive(PEER, message(pb.RowGroup(head=head(), calls=[2], rows=[1], priority=[1])), [frame(1)])
    assert [chunk.priority for chunk in listener.chunks] == [2, 1]


def test_a_group_of_a_wrong_size_does_not_shift_the_frames_of_the_next(intake: Intake, listener: Listener) -> None:
    groups = (pb.RowGroup(head=head(), calls=[1], rows=[3]), pb.RowGroup(head=head(), calls=[2], rows=[1]))
    intake.receive(PEER, message(*groups), [frame(1, 1.0), frame(1, 2.0)])
    assert [calls for calls, _ in listener.refused] == [[1]]
    assert [chunk.arrays[0].tolist() for chunk in listener.chunks] == [[[2.0, 2.0]]]


def test_a_group_of_an_unknown_version_does_not_shift_the_frames_of_the_next(
    intake: Intake, listener: Listener
) -> None:
    groups = (pb.RowGroup(head=head("gone"), calls=[1], rows=[1]), pb.RowGroup(head=head(), calls=[2], rows=[1]))
    intake.receive(PEER, message(*groups), [frame(1, 1.0), frame(1, 2.0)])
    assert [calls for calls, _ in listener.refused] == [[1]]
    assert [chunk.arrays[0].tolist() for chunk in listener.chunks] == [[[2.0, 2.0]]]


def test_a_joined_group_is_one_chunk_of_one_frame_per_input(intake: Intake, listener: Listener) -> None:
    groups = (
        pb.RowGroup(head=head(), calls=[1, 2], rows=[2, 1], joined=True),
        pb.RowGroup(head=head(), calls=[3], rows=[1]),
    )
    intake.receive(PEER, message(*groups), [frame(3, 1.0), frame(1, 2.0)])
    assert [(list(chunk.calls), list(chunk.rows), chunk.total) for chunk in listener.chunks] == [
        ([1, 2], [2, 1], 3),
        ([3], [1], 1),
    ]
    assert listener.chunks[0].arrays[0].shape == (3, 2)
    assert listener.chunks[1].arrays[0].tolist() == [[2.0, 2.0]]


def test_a_joined_group_of_a_wrong_size_does_not_shift_the_frames_of_the_next(
    intake: Intake, listener: Listener
) -> None:
    groups = (
        pb.RowGroup(head=head(), calls=[1, 2], rows=[2, 1], joined=True),
        pb.RowGroup(head=head(), calls=[3], rows=[1]),
    )
    intake.receive(PEER, message(*groups), [frame(2, 1.0), frame(1, 2.0)])
    assert [calls for calls, _ in listener.refused] == [[1, 2]]
    assert [chunk.arrays[0].tolist() for chunk in listener.chunks] == [[[2.0, 2.0]]]


@pytest.mark.parametrize(
    "group",
    [
        pb.RowGroup(head=b"\xff\xff", calls=[1], rows=[1]),
        pb.RowGroup(head=head(), calls=[1, 2], rows=[1]),
        pb.RowGroup(head=head(), calls=[1, 2], rows=[1, 1], priority=[1]),
        pb.RowGroup(head=head(), calls=[1, 2], rows=[1, 1], deadline_ms=[1]),
        pb.RowGroup(head=head(), calls=[1, 2, 3], rows=[1, 1, 1]),
    ],
)
def test_a_group_that_is_not_whole_is_refused(intake: Intake, listener: Listener, group: pb.RowGroup) -> None:
    intake.receive(PEER, message(group), [frame(1), frame(1)])
    assert [calls for calls, _ in listener.refused] == [list(group.calls)]
    assert listener.chunks == []


@pytest.mark.parametrize("header", [b"\xff", pb.ToReplica(protocol=PROTOCOL + 1).SerializeToString()])
def test_a_message_that_is_not_ours_is_dropped(intake: Intake, listener: Listener, header: bytes) -> None:
    intake.receive(PEER, header, [])
    assert (listener.chunks, listener.refused, listener.cancelled) == ([], [], [])


def test_cancellations_are_passed_on_under_the_name_of_who_asked(intake: Intake, listener: Listener) -> None:
    intake.receive(PEER, pb.ToReplica(protocol=PROTOCOL, cancelled=[4, 5]).SerializeToString(), [])
    forwarded = pb.ToReplica(protocol=PROTOCOL, cancelled=[6], cancelled_by=b"e-2")
    intake.receive(PEER, forwarded.SerializeToString(), [])
    assert listener.cancelled == [(PEER, {4, 5}), (b"e-2", {6})]


# ------------------------------------------------------------------------------------------------ split models


class Role:
    """As much of a stage's role as the intake looks at."""

    def __init__(self, plan: str) -> None:
        self.plan = plan


def staged(listener: Listener, *, plan: str = "plan", joins: Joins | None = None) -> Intake:
    """The intake of a replica that executes stage 1 of a plan."""
    served: Any = Served()
    served.stage, served.joins = Role(plan), joins
    double: Any = listener
    known = [] if joins is None else [joins]
    return Intake(lambda pool: served if pool == PoolKey("m", 1, 1) else None, double, double, lambda: iter(known))


def stage_head(name: str = "x", plan: str = "plan") -> bytes:
    way = pb.Itinerary(plan=plan, reply_to=b"e-9", hops=[pb.Hop(stage=1, replica="r", link="l")])
    message = pb.RowHead(model="m", version=1, stage=1, itinerary=way)
    message.inputs.add(name=name, datatype="FP32", dims=[2])
    return message.SerializeToString()


def test_activations_are_answered_to_the_router_not_to_the_stage_that_sent_them(listener: Listener) -> None:
    spent = pb.StageReceipt(stage=0, replica="r0")
    group = pb.RowGroup(head=stage_head(), calls=[1], rows=[1], receipt=[spent])
    staged(listener).receive(PEER, message(group), [frame(1)])
    (chunk,) = listener.chunks
    assert (chunk.peer, chunk.receipts) == (b"e-9", (spent.SerializeToString(),))


@pytest.mark.parametrize("theirs", ["other", ""])
def test_rows_of_another_plan_are_refused_with_both(listener: Listener, theirs: str) -> None:
    group = pb.RowGroup(head=stage_head(plan=theirs), calls=[1], rows=[1])
    staged(listener).receive(PEER, message(group), [frame(1)])
    ((calls, text),) = listener.refused
    assert calls == [1]
    assert f"plan '{theirs}'" in text
    assert "serves plan 'plan'" in text


def test_a_whole_model_refuses_rows_that_are_on_their_way_through_stages(intake: Intake, listener: Listener) -> None:
    way = pb.Itinerary(plan="plan", reply_to=b"e-9")
    group = pb.RowGroup(calls=[1], rows=[1])
    head_message = pb.RowHead.FromString(head())
    head_message.itinerary.CopyFrom(way)
    group.head = head_message.SerializeToString()
    intake.receive(PEER, message(group), [frame(1)])
    assert [calls for calls, _ in listener.refused] == [[1]]


def test_a_call_is_queued_when_the_tensors_of_all_senders_are_there(listener: Listener) -> None:
    joins = Joins(("x", "z"), frozenset("xz"), 8)
    intake = staged(listener, joins=joins)
    intake.receive(b"s0", message(pb.RowGroup(head=stage_head("x"), calls=[1, 2], rows=[1, 1])), [frame(1), frame(1)])
    assert listener.chunks == []
    intake.receive(b"s1", message(pb.RowGroup(head=stage_head("z"), calls=[2], rows=[1])), [frame(1)])
    assert [list(chunk.calls) for chunk in listener.chunks] == [[2]]
    assert [spec.name for spec in listener.chunks[0].head.inputs] == ["x", "z"]


def test_a_cancelled_call_does_not_wait_for_its_other_tensors(listener: Listener) -> None:
    joins = Joins(("x", "z"), frozenset("xz"), 8)
    intake = staged(listener, joins=joins)
    intake.receive(b"s0", message(pb.RowGroup(head=stage_head("x"), calls=[1], rows=[1])), [frame(1)])
    assert joins.rows == 1
    intake.receive(b"e-9", pb.ToReplica(protocol=PROTOCOL, cancelled=[1]).SerializeToString(), [])
    assert joins.rows == 0


def test_a_replica_that_refuses_says_why_to_every_call(intake: Intake, listener: Listener) -> None:
    intake.refusing = Unavailable("draining", retry_after_s=1.0)
    intake.receive(PEER, message(pb.RowGroup(head=head(), calls=[1, 2], rows=[1, 1])), [frame(1), frame(1)])
    assert listener.refused == [([1, 2], "draining")]
    assert listener.chunks == []


@pytest.mark.parametrize(
    ("given", "seconds"), [([0, 250], [float("inf"), 0.25]), ([1000, 60_000], [1.0, 60.0]), ([], None)]
)
def test_deadlines_count_from_the_arrival(
    intake: Intake, listener: Listener, monkeypatch: pytest.MonkeyPatch, given: list[int], seconds: list[float] | None
) -> None:
    monkeypatch.setattr(intake_module, "time", VirtualLoop())
    columns = [frame(2)]
    group = pb.RowGroup(head=head(), calls=[1, 2], rows=[1, 1], deadline_ms=given, columns=columns)
    intake.receive(PEER, message(group), [])
    (chunk,) = listener.chunks
    now = VirtualLoop().now
    assert chunk.arrived == now
    if seconds is None:
        assert chunk.deadlines is None
        assert chunk.earliest == float("inf")
    else:
        assert list(chunk.deadlines or ()) == pytest.approx([now + item for item in seconds])
        assert chunk.earliest == min(chunk.deadlines or ())


def test_joined_rows_of_different_priorities_part_ways(intake: Intake, listener: Listener) -> None:
    group = pb.RowGroup(head=head(), calls=[1, 2, 3], rows=[1, 2, 1], priority=[2, 1, 2])
    group.columns.append(b"".join(frame(rows, value) for rows, value in ((1, 1.0), (2, 2.0), (1, 3.0))))
    intake.receive(PEER, message(group), [])
    found = [(list(chunk.calls), chunk.priority, chunk.arrays[0][:, 0].tolist()) for chunk in listener.chunks]
    assert found == [([1], 2, [1.0]), ([2], 1, [2.0, 2.0]), ([3], 2, [3.0])]
