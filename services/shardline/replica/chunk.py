"""Rows that arrived together: the unit that queues, batches and answers are made of.

A chunk holds k >= 1 calls that share a head (model, version, stage, input names and dims). Its arrays hold the rows of
all its calls in order, so per-call work is done only where calls part ways: cancelled, expired, or too many for one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shardline.core.cluster import PoolKey
from shardline.core.datatypes import BY_NAME, BYTES, DataType
from shardline.core.errors import InvalidRequest
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.wire.codec import Buffer, from_wire

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np

NO_DEADLINE = float("inf")
ShapeKey = tuple[tuple[str, tuple[int, ...]], ...]
"""What rows must share to share a batch: every input's name and dims, padded axes rounded up."""


@dataclass(frozen=True, slots=True)
class InputHead:
    """One input of a group: dims leave out the batch axis; row_bytes is 0 for BYTES."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """A decoded RowHead. outputs: what the callers want, empty for all. itinerary: None where the model has one stage."""

    pool: PoolKey
    inputs: tuple[InputHead, ...]
    outputs: tuple[str, ...]
    itinerary: pb.Itinerary | None

    @property
    def micro_rows(self) -> int:
        """Rows that a batch beginning with these may have: a request that was cut to fill the pipeline stays cut. 0: any."""
        return self.itinerary.micro_rows if self.itinerary is not None else 0


def decode_head(data: bytes) -> Head:
    """A RowHead's bytes as a Head. Raises InvalidRequest where they are not one, or on an unknown data type."""
    try:
        message = pb.RowHead.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"link: not a RowHead ({error})") from None
    inputs = []
    for tensor in message.inputs:
        datatype = BY_NAME.get(tensor.datatype)
        if datatype is None:
            raise InvalidRequest(f"input '{tensor.name}': unknown data type '{tensor.datatype}'")
        dims = tuple(tensor.dims)
        items = 1
        for dim in dims:
            items *= dim
        inputs.append(InputHead(tensor.name, datatype, dims, items * datatype.item_bytes))
    itinerary = message.itinerary if message.HasField("itinerary") else None
    pool = PoolKey(message.model, message.version, message.stage)
    return Head(pool, tuple(inputs), tuple(message.outputs), itinerary)


@dataclass(slots=True)
class Chunk:
    """k calls of one router that share a head.

    peer: the link identity to answer to. calls, rows: k ids and row counts; total: their sum.
    arrays: per input [total, *dims] ([*dims] where the model has no batch axis).
    deadlines: per call on this process's monotonic clock, in seconds; earliest: the first of them.
    arrived: when the rows came. dropped: calls that were cancelled while they waited.
    staged: (the next batch's buffers, first row in them) where the rows were prefetched into one.
    receipts: serialised StageReceipts of the stages before, of a split model.
    """

    head: Head
    peer: bytes
    calls: Sequence[int]
    rows: Sequence[int]
    total: int
    arrays: tuple[np.ndarray, ...]
    deadlines: Sequence[float] | None
    earliest: float
    arrived: float
    priority: int = 0
    dropped: set[int] = field(default_factory=set)
    staged: tuple[object, int] | None = None
    receipts: tuple[bytes, ...] = ()

    def part(self, start: int, end: int) -> Chunk:
        """The calls [start, end) as a chunk of their own; arrays are views."""
        if start == 0 and end == len(self.calls):
            return self
        first = sum(self.rows[:start])
        rows = self.rows[start:end]
        total = sum(rows)
        deadlines = None if self.deadlines is None else self.deadlines[start:end]
        return Chunk(
            self.head,
            self.peer,
            self.calls[start:end],
            rows,
            total,
            tuple(array[first : first + total] for array in self.arrays),
            deadlines,
            NO_DEADLINE if deadlines is None else min(deadlines),
            self.arrived,
            self.priority,
            self.dropped.intersection(self.calls[start:end]) if self.dropped else set(),
            None if self.staged is None else (self.staged[0], self.staged[1] + first),
            self.receipts,
        )

    def rows_of(self, calls: Collection[int]) -> int:
        """Rows of some of its calls."""
        wanted = set(calls)
        return sum(size for call, size in zip(self.calls, self.rows, strict=True) if call in wanted)

    def split_at(self, rows: int) -> tuple[Chunk | None, Chunk | None]:
        """(calls that fit into `rows` rows, the rest); a call is never torn."""
        if self.total <= rows:
            return self, None
        if rows <= 0:
            return None, self
        taken = count = 0
        for size in self.rows:
            if taken + size > rows:
                break
            taken += size
            count += 1
        if count == 0:
            return None, self
        return self.part(0, count), self.part(count, len(self.calls))

    def living(self, now: float) -> tuple[list[Chunk], list[int]]:
        """(chunks of the calls that are still wanted, calls whose deadline has passed)."""
        if not self.dropped and self.earliest > now:
            return [self], []
        alive: list[Chunk] = []
        expired: list[int] = []
        start: int | None = None
        for index, call in enumerate(self.calls):
            late = self.deadlines is not None and self.deadlines[index] <= now
            if late and call not in self.dropped:
                expired.append(call)
            if late or call in self.dropped:
                if start is not None:
                    alive.append(self.part(start, index))
                    start = None
            elif start is None:
                start = index
        if start is not None:
            alive.append(self.part(start, len(self.calls)))
        return alive, expired


def arrays_of(head: Head, frames: Sequence[Buffer], total: int, batched: bool) -> tuple[np.ndarray, ...]:
    """Frames, one per input, as arrays [total, *dims] without a copy. Raises InvalidRequest on a wrong size."""
    arrays = []
    for spec, frame in zip(head.inputs, frames, strict=True):
        shape = (total, *spec.dims) if batched else spec.dims
        if spec.datatype is not BYTES and len(frame) != spec.row_bytes * total:
            raise InvalidRequest(
                f"input '{spec.name}': {len(frame)} bytes arrived, expected {spec.row_bytes * total} for {total} rows"
            )
        try:
            arrays.append(from_wire(frame, spec.datatype, shape))
        except ValueError as error:
            raise InvalidRequest(f"input '{spec.name}': {error}") from None
    return tuple(arrays)
