"""Row ranges of a request's tensors, as views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.wire.codec import bytes_elements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.router.validation import Template
    from shardline.wire.codec import Buffer


def cut_rows(template: Template, tensors: Sequence[Buffer], start: int, end: int) -> list[Buffer]:
    """The rows [start, end) of every tensor, in the template's order."""
    rows = template.rows
    parts: list[Buffer] = []
    for tensor, data in zip(template.tensors, tensors, strict=True):
        if tensor.size_bytes < 0:
            parts.append(_cut_elements(data, rows, start, end))
        else:
            row_bytes = tensor.size_bytes // rows
            parts.append(memoryview(data)[start * row_bytes : end * row_bytes])
    return parts


def _cut_elements(data: Buffer, rows: int, start: int, end: int) -> Buffer:
    ends = [0, *(stop for _, stop in bytes_elements(data))]
    per_row = (len(ends) - 1) // rows
    return memoryview(data)[ends[start * per_row] : ends[end * per_row]]
