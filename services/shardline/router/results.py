"""Result groups as they come from a replica, taken apart into the calls' own tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.router.replies import ResultHead, decode_result_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shardline.pb.shardline.v1 import replica_pb2 as pb
    from shardline.wire.codec import Buffer

_CACHED = 4096
"""Result heads remembered; beyond that they are decoded anew."""


class ResultReader:
    """Knows the result heads seen so far."""

    def __init__(self) -> None:
        self._heads: dict[bytes, ResultHead] = {}

    def head(self, data: bytes) -> ResultHead:
        """A serialised ResultHead, decoded once."""
        head = self._heads.get(data)
        if head is None:
            if len(self._heads) >= _CACHED:
                self._heads.clear()
            head = self._heads[data] = decode_result_head(data)
        return head

    @staticmethod
    def frames_of(group: pb.ResultGroup, head: ResultHead) -> int:
        """How many frames of the message belong to the group."""
        if group.columns:
            return 0
        return len(head.outputs) if group.joined else len(head.outputs) * len(group.calls)

    @staticmethod
    def calls(
        group: pb.ResultGroup, head: ResultHead, frames: Sequence[Buffer]
    ) -> Iterator[tuple[int, Sequence[Buffer]]]:
        """(call id, its tensors in the head's order) of every call. frames: the group's own."""
        width = len(head.outputs)
        if not group.columns and not group.joined:
            for index, wire_id in enumerate(group.calls):
                yield wire_id, frames[index * width : (index + 1) * width]
            return
        columns: Sequence[Buffer] = group.columns or frames
        sizes = [output.row_bytes for output in head.outputs]
        row = 0
        if width == 1:
            column, size = columns[0], sizes[0]
            for wire_id, rows in zip(group.calls, group.rows, strict=True):
                yield wire_id, (column[row * size : (row + rows) * size],)
                row += rows
            return
        for wire_id, rows in zip(group.calls, group.rows, strict=True):
            end = row + rows
            yield wire_id, [column[row * size : end * size] for column, size in zip(columns, sizes, strict=True)]
            row = end
