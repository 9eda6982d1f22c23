"""Answers for clients, built from result frames without parsing tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.core.datatypes import BY_NAME
from shardline.pb.shardline.v1 import replica_pb2 as pb
from shardline.wire.codec import Buffer, id_field, raw_prefix, response_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RECEIPT_BYTES = 4096
"""Room for receipts in the trailing metadata, of which clients take 8 KiB for sure."""


@dataclass(frozen=True, slots=True)
class OutputHead:
    """One output of a result: dims of one row; row_bytes is 0 for BYTES."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    row_bytes: int


@dataclass(slots=True)
class ResultHead:
    """A decoded ResultHead, and the response heads made from it so far (by rows; -1 where there is no batch axis).

    fixed: there are outputs, and none is of BYTES, so the rows say how long each tensor is.
    """

    model: str
    version: int
    outputs: tuple[OutputHead, ...]
    fixed: bool
    _prepared: dict[int, tuple[bytes, ...]] = field(default_factory=dict)

    def pieces(self, rows: int) -> tuple[bytes, ...]:
        """For each tensor, the bytes that go before it in a response of `rows` rows; `fixed` must hold."""
        found = self._prepared.get(rows)
        if found is None:
            head = self.head(rows)
            pieces = [raw_prefix(output.row_bytes * max(rows, 1)) for output in self.outputs]
            found = (head + pieces[0], *pieces[1:])
            if len(self._prepared) >= 256:
                self._prepared.clear()
            self._prepared[rows] = found
        return found

    def head(self, rows: int) -> bytes:
        """The serialised response head, without tensors."""
        return response_head(
            self.model,
            self.version,
            [
                (output.name, output.datatype, output.dims if rows < 0 else (rows, *output.dims))
                for output in self.outputs
            ],
        )


def decode_result_head(data: bytes) -> ResultHead:
    """A serialised ResultHead. Raises KeyError on an unknown data type."""
    message = pb.ResultHead.FromString(data)
    outputs = []
    for tensor in message.outputs:
        size = BY_NAME[tensor.datatype].item_bytes
        for dim in tensor.dims:
            size *= dim
        outputs.append(OutputHead(tensor.name, tensor.datatype, tuple(tensor.dims), size))
    fixed = bool(outputs) and all(BY_NAME[tensor.datatype].item_bytes for tensor in message.outputs)
    return ResultHead(message.model, message.version, tuple(outputs), fixed)


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """A part's outputs as they came, in the head's order."""

    head: ResultHead
    tensors: Sequence[Buffer]
    receipt: str


def respond(head: ResultHead, rows: int, tensors: Sequence[Buffer], request_id: str) -> bytes:
    """A serialised ModelInferResponse. rows: -1 where the model has no batch axis."""
    if head.fixed:
        pieces: list[Buffer] = [part for pair in zip(head.pieces(rows), tensors, strict=True) for part in pair]
    else:
        pieces = [head.head(rows)]
        for tensor in tensors:
            pieces += (raw_prefix(len(tensor)), tensor)
    if request_id:
        pieces.append(id_field(request_id))
    return b"".join(pieces)


def join_parts(answers: Sequence[PartAnswer]) -> list[Buffer]:
    """The outputs of a request that was cut, joined on the batch axis. Raises ValueError where parts differ in shape."""
    first = answers[0].head
    for answer in answers[1:]:
        if answer.head.outputs != first.outputs or answer.head.version != first.version:
            raise ValueError(f"parts answered with {answer.head.outputs} and {first.outputs}")
    return [b"".join(answer.tensors[index] for answer in answers) for index in range(len(first.outputs))]


def join_receipts(texts: Iterable[str]) -> str:
    """The receipt of a request that was cut, from those of its parts; its end tells how many entries there is no room for.

    Clients refuse metadata above 8 to 16 KiB, and with it the whole answer (grpc.max_metadata_size).
    """
    entries = dict.fromkeys(entry for text in texts for entry in text.split("|"))
    kept: list[str] = []
    size = 0
    for entry in entries:
        size += len(entry) + 1
        if size > _RECEIPT_BYTES:
            return "|".join((*kept, f"left_out={len(entries) - len(kept)}"))
        kept.append(entry)
    return "|".join(kept)


def receipt_text(receipts: Iterable[pb.StageReceipt]) -> str:
    """Where the time went, as `key=value` pairs: one group per stage, joined by `|`."""
    return "|".join(
        f"stage={item.stage};replica={item.replica};queue_us={item.queue_us};batch_rows={item.batch_rows};"
        f"bucket={item.bucket};input_us={item.input_us};compute_us={item.compute_us}"
        for item in receipts
    )
