"""What a replica takes from its link: defaults of priorities, and messages that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shardline.core.cluster import PoolKey
from shardline.core.models import Batching, ModelSpec
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica.intake import Intake
from shardline.wire.link import PROTOCOL

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
