"""A router's dispatcher over links that are lists, replicas that answer when told, and a clock that stands still."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shardline.core.cluster import ReplicaInfo, ReplicaState
from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.pb.shardline.v1 import replica_pb2 as link_pb
from shardline.router import dispatch, members, sender
from shardline.router.admission import Bounds
from shardline.router.dispatch import Dispatcher
from shardline.router.members import Member
from shardline.router.table import Table
from shardline.wire.codec import Buffer, decode_bytes, encode_bytes
from shardline.wire.descriptions import Description
from shardline.wire.link import PROTOCOL
from tests.unit.router.messages import description, model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pytest

    from shardline.core.errors import ServingError
    from shardline.core.models import ModelSpec
    from shardline.router.calls import Part, Request

BOUNDS = Bounds(rows_in_flight=64, bytes_in_flight=1 << 20, max_message_bytes=1 << 16, retry_ratio=0.1)
ADDED = 100.0
"""What replicas here add to FP32 rows; text they spell in capitals."""


class Clock:
    """Stands in for the module `time` where a module asks for the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeLink:
    """The sending end of a link: what was sent is kept, and the test says when the link is up."""

    def __init__(
        self,
        _context: object,
        address: str,
        receive: Callable[[bytes, bytes, list[Buffer]], None],
        on_up: Callable[[], None],
        on_lost: Callable[[], None],
        *_options: object,
        **_more: object,
    ) -> None:
        self.address = address
        self.up = False
        self.choked = False
        self.closed = False
        self.sent: list[tuple[bytes, list[Buffer]]] = []
        self.receive = receive
        self._on_up = on_up
        self._on_lost = on_lost

    def send(self, header: bytes, frames: Sequence[Buffer]) -> bool:
        if not self.up or self.choked:
            return False
        self.sent.append((header, list(frames)))
        return True

    def close(self) -> None:
        self.closed = True
        self.up = False

    def rise(self) -> None:
        self.up = True
        self._on_up()

    def fall(self) -> None:
        self.up = False
        self._on_lost()


@dataclass(frozen=True)
class Sent:
    """A call as it arrived at a replica: one buffer per input."""

    head: link_pb.RowHead
    rows: int
    tensors: tuple[bytes, ...]
    deadline_ms: int
    priority: int


class Replica:
    """A replica that keeps what it was sent, and answers and refuses when told."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.messages = 0
        self.calls: dict[int, Sent] = {}
        self.cancelled: list[int] = []
        self.in_flight: list[int] = []  # as each group said it

    @property
    def link(self) -> FakeLink:
        link: Any = self.member.link
        return link

    def read(self) -> list[int]:
        """Take what the link holds; returns the calls that are new."""
        new = []
        for header, frames in self.link.sent:
            message = link_pb.ToReplica.FromString(header)
            assert message.protocol == PROTOCOL
            self.messages += 1
            left = [bytes(frame) for frame in frames]
            for group in message.groups:
                new += self._group(group, left)
            assert not left
            self.cancelled += message.cancelled
        self.link.sent.clear()
        return new

    def _group(self, group: link_pb.RowGroup, frames: list[bytes]) -> list[int]:
        self.in_flight.append(group.in_flight)
        head = link_pb.RowHead.FromString(group.head)
        width = len(head.inputs)
        assert len(group.calls) == len(group.rows) == len(group.deadline_ms)
        at = 0
        for index, call in enumerate(group.calls):
            rows = group.rows[index]
            if group.columns:
                sizes = [len(column) // sum(group.rows) for column in group.columns]
                tensors = [c[at * s : (at + rows) * s] for c, s in zip(group.columns, sizes, strict=True)]
            else:
                tensors = [frames.pop(0) for _ in range(width)]
            at += rows
            priority = group.priority[index] if group.priority else 0
            assert call not in self.calls
            self.calls[call] = Sent(head, rows, tuple(tensors), group.deadline_ms[index], priority)
        return list(group.calls)

    @property
    def wanted(self) -> list[int]:
        """Calls that arrived and were not cancelled."""
        self.read()
        return [call for call in self.calls if call not in self.cancelled]

    def answer(self, *calls: int, style: str = "columns", receipt: link_pb.StageReceipt | None = None) -> None:
        """Say the outputs of calls that share a head, in one message: as columns, joined frames, or loose frames."""
        sent = [self.calls[call] for call in calls]
        rows = [call.rows for call in sent]
        outputs = [[_executed(tensor, call) for tensor in call.tensors] for call in sent]
        group = link_pb.ResultGroup(head=_result_head(sent[0]), calls=calls, rows=rows)
        if receipt is not None:
            group.receipt.append(receipt)
        columns = [b"".join(column) for column in zip(*outputs, strict=True)]
        frames: list[bytes] = []
        if style == "columns":
            group.columns.extend(columns)
        elif style == "joined":
            group.joined = True
            frames = columns
        else:
            frames = [tensor for tensors in outputs for tensor in tensors]
        self.say(link_pb.FromReplica(results=[group]), frames)

    def refuse(self, *calls: int, reason: str, message: str = "no", retry_after_ms: int = 0) -> None:
        refusal = link_pb.Refusal(calls=calls, reason=reason, message=message, retry_after_ms=retry_after_ms)
        self.say(link_pb.FromReplica(refusals=[refusal]))

    def report(self, pool: str = "m:1/0", **load: float) -> None:
        self.say(link_pb.FromReplica(loads=[link_pb.PoolLoad(pool=pool, **load)]))  # type: ignore[arg-type]

    def say(self, message: link_pb.FromReplica, frames: Sequence[bytes] = ()) -> None:
        message.protocol = PROTOCOL
        self.link.receive(b"", message.SerializeToString(), [memoryview(frame) for frame in frames])


def _executed(tensor: bytes, call: Sent) -> bytes:
    if call.head.inputs[0].datatype == "BYTES":
        return encode_bytes(element.upper() for element in decode_bytes(tensor))
    return (np.frombuffer(tensor, np.float32) + np.float32(ADDED)).tobytes()


def _result_head(call: Sent) -> bytes:
    head = link_pb.ResultHead(model=call.head.model, version=call.head.version)
    for index, tensor in enumerate(call.head.inputs):
        head.outputs.add(name=f"y{index}" if index else "y", datatype=tensor.datatype, dims=tensor.dims)
    return head.SerializeToString()


class Caller:
    """A client: fails the test where it is answered twice."""

    def __init__(self) -> None:
        self.response: pb.ModelInferResponse | None = None
        self.receipt = ""
        self.error: ServingError | None = None
        self.request: Request | None = None

    @property
    def answered(self) -> bool:
        return self.response is not None or self.error is not None

    def ok(self, body: bytes, receipt: str) -> None:
        assert not self.answered, "answered twice"
        self.response = pb.ModelInferResponse.FromString(body)
        self.receipt = receipt

    def fail(self, error: ServingError) -> None:
        assert not self.answered, "answered twice"
        self.error = error

    def rows(self, output: int = 0) -> list[float]:
        """First value of each row of an FP32 output, as the caller sent it."""
        assert self.response is not None
        shape = self.response.outputs[output].shape
        array = np.frombuffer(self.response.raw_output_contents[output], np.float32).reshape(shape)
        return [float(value) - ADDED for value in array[:, 0]]


class Ledger:
    """Accounts that keep every entry: (what, its arguments)."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.entries.append((name, arguments))

    def count(self, what: str) -> int:
        return sum(entry == what for entry, _ in self.entries)


class Cluster:
    """A dispatcher, its table and its members, in a loop that turns when told."""

    def __init__(self, patch: pytest.MonkeyPatch, bounds: Bounds = BOUNDS) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.replicas: list[Replica] = []
        self.turns: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        patch.setattr(members, "LinkClient", FakeLink)
        for module in (dispatch, members, sender):
            patch.setattr(module, "time", self.clock)
        accounts: Any = self.ledger
        self.table = Table()
        self.dispatcher = Dispatcher(self.table, bounds, accounts, self.turns.append)

    def join(
        self,
        name: str,
        *served: ModelSpec | Description,
        up: bool = True,
        state: ReplicaState = ReplicaState.READY,
    ) -> Replica:
        """A replica that serves the given models, or the usual one."""
        info = ReplicaInfo(name, f"{name}:1", f"{name}:2", state, (), "cpu", "host", 7, 0.0)
        context: Any = None
        member = Member(info, context, self.dispatcher.receive, self.rebuild, self._lost, self.dispatcher.touch)
        replica = Replica(member)
        self.replicas.append(replica)
        self.serve(replica, *(served or (model(),)))
        if up:
            replica.link.rise()
        return replica

    def serve(self, replica: Replica, *served: ModelSpec | Description) -> None:
        """From now on the replica serves these."""
        described = [item if isinstance(item, Description) else description(item) for item in served]
        replica.member.descriptions = {item.pool: item for item in described}
        self.rebuild()

    def announce(self, replica: Replica, state: ReplicaState) -> None:
        """The replica announces another state."""
        replica.member.info = replace(replica.member.info, state=state)
        self.rebuild()

    def leave(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.rebuild()
        replica.member.close()

    def rebuild(self) -> None:
        self.table.rebuild([replica.member for replica in self.replicas])
        self.dispatcher.forget_templates()

    def _lost(self, member: Member, parts: Iterable[Part]) -> None:
        self.dispatcher.lost(member, parts)

    def submit(self, message: bytes, timeout_s: float | None = None) -> Caller:
        caller = Caller()
        caller.request = self.dispatcher.submit(message, caller, timeout_s)
        return caller

    def turn(self) -> None:
        """End this turn of the event loop."""
        while self.turns:
            self.turns.pop(0)()

    def send(self, *messages: bytes) -> list[Caller]:
        """Submit, and end the turn."""
        callers = [self.submit(message) for message in messages]
        self.turn()
        return callers

    def holder(self) -> tuple[Replica, int]:
        """The replica that has the one call in flight, and the call."""
        for replica in self.replicas:
            replica.read()
        found = [
            (replica, call)
            for replica in self.replicas
            for call in replica.member.in_flight
            if call in replica.calls and call not in replica.cancelled
        ]
        assert len(found) == 1
        return found[0]

    def rows_in_flight(self, name: str = "m") -> int:
        return self.table.models[name].rows_in_flight

    def assert_empty(self) -> None:
        """Nothing is in flight, in any account."""
        self.turn()
        assert self.dispatcher.requests_in_flight == 0
        assert self.dispatcher.bytes_in_flight == 0
        assert [m.rows_in_flight for m in self.table.models.values()] == [0] * len(self.table.models)
        for replica in self.replicas:
            assert replica.member.in_flight == {}
            assert replica.member.own_rows == 0
