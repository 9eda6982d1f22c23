"""What arrives on the replica's link: rows to execute and calls that nobody wants any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shardline.core.cluster import PoolKey
from shardline.core.errors import InvalidRequest, PlanMismatch, ServingError, Unavailable, VersionGone
from shardline.ops import logs
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica.chunk import NO_DEADLINE, Chunk, Head, arrays_of, decode_head
from shardline.replica.served import Served
from shardline.wire.link import PROTOCOL

if TYPE_CHECKING:
    from shardline.core.models import Batching
    from shardline.replica.answers import LinkAnswers
    from shardline.replica.join import Joins
    from shardline.replica.scheduler import Scheduler
    from shardline.wire.codec import Buffer

log = logs.get(__name__)

Find = Callable[[PoolKey], Served | None]


class Intake:
    """Turns link messages into chunks. A message that is not one of ours is dropped, and its peer hears nothing."""

    def __init__(
        self,
        find: Find,
        scheduler: Scheduler,
        answers: LinkAnswers,
        joins: Callable[[], Iterable[Joins]] = tuple,
    ) -> None:
        """joins: of all stages served here."""
        self._find = find
        self._joins = joins
        self._scheduler = scheduler
        self._answers = answers
        self._heads: dict[bytes, Head] = {}
        self.refusing: Unavailable | None = None

    def receive(self, peer: bytes, header: bytes, frames: list[Buffer]) -> None:
        """Take one message of `peer`."""
        try:
            message = pb.ToReplica.FromString(header)
        except DecodeError:
            log.warning("link.rubbish", peer=peer.hex(), size_bytes=len(header))
            return
        if message.protocol != PROTOCOL:
            log.warning("link.protocol", peer=peer.hex(), theirs=message.protocol, ours=PROTOCOL)
            return
        now = time.monotonic()
        at = 0
        alone = len(message.groups) == 1 and not message.cancelled
        for group in message.groups:
            at = self._group(peer, group, frames, at, now, alone=alone)
        if message.cancelled:
            self._cancel(message.cancelled_by or peer, set(message.cancelled))
        self._scheduler.pump()

    def _cancel(self, peer: bytes, calls: set[int]) -> None:
        for joins in self._joins():
            joins.cancel(peer, calls)
        self._scheduler.cancel(peer, calls)

    def _group(
        self, peer: bytes, group: pb.RowGroup, frames: Sequence[Buffer], at: int, now: float, *, alone: bool = False
    ) -> int:
        """Queue a group whose frames begin at `at`; returns where the next group's begin. alone: nothing else came."""
        calls = list(group.calls)
        end = len(frames)  # where the group's own end is unknown, nothing after it can be told apart
        try:
            head = self._head(group.head)
            count = 0 if group.columns else len(head.inputs) * (1 if group.joined else len(calls))
            if at + count > len(frames) or not _is_whole(group, len(head.inputs)):
                raise InvalidRequest(
                    f"link: {len(frames) - at} frames arrived, expected {count}, or numbers are missing"
                )
            end = at + count
            served = self._serving(head)
            if group.in_flight:
                served.in_flight.told(peer, group.in_flight, now)
            if head.itinerary is not None:
                peer = head.itinerary.reply_to
            chunks = _chunks(head, peer, group, frames[at:end], now, served.spec.batching)
            if alone and len(chunks) == 1 and served.joins is None and self._scheduler.express(served, chunks[0]):
                return end
            for chunk in chunks:
                for whole in (chunk,) if served.joins is None else served.joins.add(chunk, now):
                    self._scheduler.submit(served, whole)
        except ServingError as error:
            self._answers.refuse_peer(peer, calls, error)
        return end

    def _head(self, data: bytes) -> Head:
        head = self._heads.get(data)
        if head is None:
            head = decode_head(data)
            if len(self._heads) >= 4096:
                self._heads.clear()
            self._heads[data] = head
        return head

    def _serving(self, head: Head) -> Served:
        if self.refusing is not None:
            raise self.refusing
        pool = head.pool
        served = self._find(pool)
        if served is None:
            raise VersionGone(f"model '{pool.model}' version {pool.version} is not loaded on this replica")
        ours = served.stage.plan if served.stage is not None else ""
        theirs = head.itinerary.plan if head.itinerary is not None else ""
        if ours != theirs:
            raise PlanMismatch(
                f"model '{pool.model}' version {pool.version} stage {pool.stage}: the itinerary is of plan "
                f"'{theirs}', this replica serves plan '{ours}'"
            )
        return served


def _is_whole(group: pb.RowGroup, inputs: int) -> bool:
    """Whether every call has its numbers and every input its column."""
    calls = len(group.calls)
    return (
        len(group.rows) == calls
        and len(group.deadline_ms) in (0, calls)
        and len(group.priority) in (0, calls)
        and len(group.columns) in (0, inputs)
    )


def _chunks(
    head: Head, peer: bytes, group: pb.RowGroup, frames: Sequence[Buffer], now: float, batching: Batching
) -> list[Chunk]:
    """The group's calls as chunks: one where its rows are joined and of one priority, else one per call."""
    calls, rows = list(group.calls), list(group.rows)
    deadlines = [now + ms * 1e-3 if ms else NO_DEADLINE for ms in group.deadline_ms] if group.deadline_ms else None
    # A group without priorities has the model's default: 0 would overtake the most urgent, which is 1.
    priorities = list(group.priority) or [batching.default_priority] * len(calls)
    batched = batching.max_rows > 0
    width = len(head.inputs)
    receipts = tuple(receipt.SerializeToString() for receipt in group.receipt)
    if group.columns or group.joined:
        total = sum(rows)
        earliest = NO_DEADLINE if deadlines is None else min(deadlines)
        arrays = arrays_of(head, group.columns or frames, total, batched)
        chunk = Chunk(head, peer, calls, rows, total, arrays, deadlines, earliest, now, receipts=receipts)
        if len(set(priorities)) <= 1:
            chunk.priority = priorities[0] if priorities else 0
            return [chunk]
        parts = [chunk.part(index, index + 1) for index in range(len(calls))]
        for part, priority in zip(parts, priorities, strict=True):
            part.priority = priority
        return parts
    return [
        Chunk(
            head,
            peer,
            [call],
            [rows[index]],
            rows[index],
            arrays_of(head, frames[index * width : (index + 1) * width], rows[index], batched),
            None if deadlines is None else [deadlines[index]],
            NO_DEADLINE if deadlines is None else deadlines[index],
            now,
            priorities[index],
            receipts=receipts,
        )
        for index, call in enumerate(calls)
    ]
