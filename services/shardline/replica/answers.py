"""Outcomes on their way out: to the router that asked, gathered per peer and turn of the event loop.

Results of consecutive chunks that share a caller and a head go out as one group whose frames are views into the batch's
outputs: nothing is copied per call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.replica.chunk import NO_DEADLINE
from shardline.wire.codec import Buffer, encode_bytes
from shardline.wire.link import PROTOCOL

if TYPE_CHECKING:
    from shardline.core.errors import ServingError
    from shardline.replica.batch import Batch, Outcome
    from shardline.replica.chunk import Chunk, Head
    from shardline.replica.forward import Forwarder
    from shardline.replica.served import Served
    from shardline.replica.stage import StageRole

_WITHIN_HEADER_BELOW = 16384
"""Bytes of a group's outputs that travel within the header: a copy is cheaper than a frame."""
_HEADS = 1024
"""Encoded heads that are kept."""

Send = Callable[[bytes, bytes, Sequence[Buffer]], bool]


@dataclass(slots=True)
class _Outbox:
    message: pb.FromReplica = field(default_factory=lambda: pb.FromReplica(protocol=PROTOCOL))
    frames: list[Buffer] = field(default_factory=list)
    reports: dict[str, Served] = field(default_factory=dict)


class LinkAnswers:
    """Answers that go to routers over the replica's link."""

    def __init__(self, replica: str, send: Send, forwarder: Forwarder | None = None) -> None:
        """forwarder: to later stages; None where no model here is split."""
        self._forwarder = forwarder
        self._replica = replica
        self._send = send
        self._outboxes: dict[bytes, _Outbox] = {}
        self._heads: dict[object, bytes] = {}
        self._row_heads: dict[object, tuple[Head, bytes]] = {}
        self._sequence = 0

    def _outbox(self, peer: bytes) -> _Outbox:
        outbox = self._outboxes.get(peer)
        if outbox is None:
            outbox = self._outboxes[peer] = _Outbox()
        return outbox

    def results(self, batch: Batch, outcome: Outcome) -> None:
        """Scatter the outputs [bucket, *dims] of `outcome`'s chunks to their callers."""
        at = 0
        for _, members in groupby(outcome.chunks, key=lambda chunk: (chunk.peer, id(chunk.head))):
            chunks = list(members)
            rows = sum(chunk.total for chunk in chunks)
            self._group(batch, chunks, outcome.outputs, at, at + rows)
            at += rows

    def _group(
        self, batch: Batch, chunks: Sequence[Chunk], outputs: Sequence[np.ndarray], start: int, end: int
    ) -> None:
        served, head = batch.served, chunks[0].head
        if served.stage is not None:
            self._stage_group(batch, served.stage, chunks, outputs, start, end)
            return
        names = head.outputs or served.output_names
        arrays = [outputs[batch.names.index(name)] for name in names]
        if served.spec.batched:
            arrays = [array[start:end] for array in arrays]
        trim = served.spec.batching.trim_outputs
        if trim:
            arrays = [_trim(name, array, trim, chunks[0], served) for name, array in zip(names, arrays, strict=True)]
        self._results(batch, chunks, names, arrays, (self._receipt(batch, chunks),))

    def _results(
        self,
        batch: Batch,
        chunks: Sequence[Chunk],
        names: Sequence[str],
        arrays: Sequence[np.ndarray],
        receipts: Sequence[pb.StageReceipt],
    ) -> None:
        served = batch.served
        rows = [count for chunk in chunks for count in chunk.rows]
        head = self._head(served, names, arrays)
        # Made before the group is: one that lacked frames would take those of its neighbours.
        columns, frames, joined = _tensors(arrays, rows, batched=served.spec.batched)
        outbox = self._outbox(chunks[0].peer)
        group = outbox.message.results.add(head=head, receipt=receipts, rows=rows, columns=columns, joined=joined)
        for chunk in chunks:
            group.calls.extend(chunk.calls)
        outbox.frames += frames
        outbox.reports[str(served.pool)] = served

    def _stage_group(
        self,
        batch: Batch,
        role: StageRole,
        chunks: Sequence[Chunk],
        outputs: Sequence[np.ndarray],
        start: int,
        end: int,
    ) -> None:
        """Outputs of a stage: to the stages that need them, and to the router what it needs of them."""
        batched = batch.served.spec.batched
        arrays = {
            name: array[start:end] if batched else array for name, array in zip(batch.names, outputs, strict=True)
        }
        before = dict.fromkeys(receipt for chunk in chunks for receipt in chunk.receipts)
        receipts = [*(pb.StageReceipt.FromString(data) for data in before), self._receipt(batch, chunks)]
        if role.answers:
            self._results(batch, chunks, role.answers, [arrays[name] for name in role.answers], receipts)
        for stage, names in role.consumers.items():
            self._forward(batch.served, chunks, stage, {name: arrays[name] for name in names}, receipts)

    def _forward(
        self,
        served: Served,
        chunks: Sequence[Chunk],
        stage: int,
        arrays: Mapping[str, np.ndarray],
        receipts: Sequence[pb.StageReceipt],
    ) -> None:
        head = chunks[0].head
        assert head.itinerary is not None
        assert self._forwarder is not None
        hop = next(hop for hop in head.itinerary.hops if hop.stage == stage)
        rows = [count for chunk in chunks for count in chunk.rows]
        columns, frames, joined = _tensors(list(arrays.values()), rows, batched=served.spec.batched)
        group = self._forwarder.group(
            hop.link, chunks[0].peer, [call for chunk in chunks for call in chunk.calls], frames
        )
        group.head = self._row_head(served, head, stage, arrays)
        group.receipt.extend(receipts)
        group.rows.extend(rows)
        group.columns.extend(columns)
        group.joined = joined
        now = time.monotonic()
        group.in_flight = served.in_flight.rows(now)
        for chunk in chunks:
            group.priority.extend([chunk.priority] * len(chunk.calls))
            group.deadline_ms.extend(_left_ms(chunk, now))

    def _row_head(self, served: Served, head: Head, stage: int, arrays: Mapping[str, np.ndarray]) -> bytes:
        """The head of rows that came under `head`, for the next stage."""
        first = 1 if served.spec.batched else 0
        key = (id(head), stage, *(array.shape[first:] for array in arrays.values()))
        known = self._row_heads.get(key)
        if known is not None and known[0] is head:
            return known[1]
        message = pb.RowHead(model=served.spec.name, version=served.spec.version, stage=stage, itinerary=head.itinerary)
        for name, array in arrays.items():
            message.inputs.add(name=name, datatype=served.output_type(name).name, dims=array.shape[first:])
        if len(self._row_heads) >= _HEADS:
            self._row_heads.clear()
        data = message.SerializeToString()
        self._row_heads[key] = head, data
        return data

    def _head(self, served: Served, names: Sequence[str], arrays: Sequence[np.ndarray]) -> bytes:
        first = 1 if served.spec.batched else 0
        # With the digest: a version may be loaded again from another file, whose outputs have other data types.
        key = (served.pool, served.spec.digest, tuple(names), tuple(array.shape[first:] for array in arrays))
        data = self._heads.get(key)
        if data is None:
            message = pb.ResultHead(model=served.spec.name, version=served.spec.version)
            for name, array in zip(names, arrays, strict=True):
                datatype = served.output_type(name)
                message.outputs.add(name=name, datatype=datatype.name, dims=array.shape[first:])
            data = message.SerializeToString()
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[key] = data
        return data

    def _receipt(self, batch: Batch, chunks: Sequence[Chunk]) -> pb.StageReceipt:
        return pb.StageReceipt(
            stage=batch.served.pool.stage,
            queue_us=int((batch.taken_at - chunks[0].arrived) * 1e6),
            input_us=int(batch.input_s * 1e6),
            compute_us=int(batch.compute_s * 1e6),
            batch_rows=batch.rows,
            bucket=batch.bucket,
            replica=self._replica,
        )

    def refuse(self, chunk: Chunk, calls: Sequence[int], error: ServingError) -> None:
        """Tell the caller of `chunk` that these calls have no answer, and why."""
        self.refuse_peer(chunk.peer, calls, error)

    def refuse_peer(self, peer: bytes, calls: Sequence[int], error: ServingError) -> None:
        """As refuse, where the rows never became a chunk."""
        self._outbox(peer).message.refusals.add(
            calls=calls,
            reason=error.reason,
            message=error.message,
            retry_after_ms=0 if error.retry_after_s is None else max(1, int(error.retry_after_s * 1e3)),
        )

    def refuse_soon(self, peer: bytes, calls: Sequence[int], error: ServingError) -> None:
        """As refuse_peer, for callers that do not flush."""
        self.refuse_peer(peer, calls, error)
        asyncio.get_running_loop().call_soon(self.flush)

    def forward_by(self, forwarder: Forwarder) -> None:
        """Send activations by `forwarder` from now on."""
        self._forwarder = forwarder

    def flush(self) -> None:
        """Send what was gathered; what a peer that is gone would have got is dropped: its router is gone."""
        if self._forwarder is not None:
            self._forwarder.flush()
        if not self._outboxes:
            return
        outboxes, self._outboxes = self._outboxes, {}
        now = time.monotonic()
        for peer, outbox in outboxes.items():
            self._sequence += 1
            outbox.message.sequence = self._sequence
            for pool, served in outbox.reports.items():
                load = served.load(now, self._sequence)
                outbox.message.loads.add(
                    pool=pool,
                    queue_rows=load.queue_rows,
                    running_rows=load.running_rows,
                    busy_ms=load.busy_ms,
                    alpha_ms=load.alpha_ms,
                    beta_ms=load.beta_ms,
                )
            self._send(peer, outbox.message.SerializeToString(), outbox.frames)


def _tensors(
    arrays: Sequence[np.ndarray], rows: Sequence[int], *, batched: bool
) -> tuple[list[bytes], list[Buffer], bool]:
    """(columns, frames, joined): small outputs go within the header, large ones as frames that are views, strings as
    frames of each call.
    """
    if all(array.dtype != object for array in arrays):
        if sum(array.nbytes for array in arrays) < _WITHIN_HEADER_BELOW:
            return [array.tobytes() for array in arrays], [], False
        return [], [_as_buffer(array) for array in arrays], True
    return [], _frames_of_each(arrays, rows, batched=batched), False


def _frames_of_each(arrays: Sequence[np.ndarray], rows: Sequence[int], *, batched: bool) -> list[Buffer]:
    """For each call a frame per array, with its own rows."""
    frames: list[Buffer] = []
    at = 0
    for count in rows:
        for array in arrays:
            part = array[at : at + count] if batched else array
            frames.append(encode_bytes(part) if part.dtype == object else _as_buffer(part))
        at += count
    return frames


def _left_ms(chunk: Chunk, now: float) -> list[int]:
    """Milliseconds left to each call's deadline; 0 for none."""
    if chunk.deadlines is None:
        return [0] * len(chunk.calls)
    return [0 if at == NO_DEADLINE else max(1, int((at - now) * 1e3)) for at in chunk.deadlines]


def _as_buffer(array: np.ndarray) -> Buffer:
    if array.nbytes < 8192:
        return array.tobytes()
    contiguous = np.ascontiguousarray(array)
    return contiguous.reshape(-1).view(np.uint8).data


def _trim(name: str, array: np.ndarray, trim: dict[str, int], chunk: Chunk, served: Served) -> np.ndarray:
    """An output of padded rows, cut back to the rows' own length."""
    axis = trim.get(name)
    if axis is None:
        return array
    for spec in chunk.head.inputs:
        padding = served.spec.batching.pad_inputs.get(spec.name)
        if padding is not None:
            index = [slice(None)] * array.ndim
            index[axis + 1] = slice(0, spec.dims[padding.axis])
            return array[tuple(index)]
    return array
