"""From chunks to the arrays of a batch, and back: padding to the bucket, padding of sequence axes, prefetch.

While one batch computes, rows of large tensors that arrive are copied into the next batch's buffer at once (`Prefetch`), so
that the executor finds it assembled. Rows that were not prefetched are joined when the batch is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardline.core.models import Batching
    from shardline.replica.chunk import Chunk, Head, ShapeKey


def shape_key(head: Head, batching: Batching) -> ShapeKey:
    """What rows must share to share a batch.

    A padded axis counts as the next power of two, so that lengths within a factor of two meet
    and a short row is never padded to many times its length.
    """
    key = []
    for spec in head.inputs:
        dims = spec.dims
        padding = batching.pad_inputs.get(spec.name)
        if padding is not None:
            length = max(dims[padding.axis], padding.multiple)
            dims = (*dims[: padding.axis], 1 << (length - 1).bit_length(), *dims[padding.axis + 1 :])
        key.append((spec.name, dims))
    return tuple(key)


def padded_length(length: int, multiple: int) -> int:
    """`length` rounded up to a multiple.

    >>> padded_length(9, 8)
    16
    """
    return -(-length // multiple) * multiple


def join(chunks: Sequence[Chunk], bucket: int, batching: Batching) -> dict[str, np.ndarray]:
    """Arrays [bucket, *dims] per input. Rows beyond the chunks' repeat the last row, which the model is known to take.

    Copies nothing where one chunk fills the bucket.
    """
    feeds: dict[str, np.ndarray] = {}
    for index, spec in enumerate(chunks[0].head.inputs):
        parts = [chunk.arrays[index] for chunk in chunks]
        padding = batching.pad_inputs.get(spec.name)
        if padding is not None:
            length = max(part.shape[padding.axis + 1] for part in parts)
            target = padded_length(length, padding.multiple)
            parts = [_pad(part, padding.axis + 1, target, padding.value) for part in parts]
        feeds[spec.name] = _fill(parts, bucket)
    return feeds


def join_unbatched(chunks: Sequence[Chunk]) -> dict[str, np.ndarray]:
    """The arrays of a model without a batch axis: its one call's tensors as they came."""
    (chunk,) = chunks
    return {spec.name: array for spec, array in zip(chunk.head.inputs, chunk.arrays, strict=True)}


def _pad(array: np.ndarray, axis: int, target: int, value: float) -> np.ndarray:
    missing = target - array.shape[axis]
    if missing <= 0:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths, constant_values=array.dtype.type(value))


def _fill(parts: Sequence[np.ndarray], bucket: int) -> np.ndarray:
    rows = sum(len(part) for part in parts)
    if rows == bucket:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    whole = np.empty((bucket, *parts[0].shape[1:]), dtype=parts[0].dtype)
    np.concatenate(parts, out=whole[:rows])
    whole[rows:] = whole[rows - 1]
    return whole


@dataclass(slots=True)
class Prefetch:
    """The next batch's buffers of one shape key, filled row by row while the device computes.

    Only rows of at least `row_bytes_at_least` are worth it: smaller ones are joined faster than they are looked after.
    A call of more than `max_rows` (a router that knows an older config) is left as it came.
    """

    max_rows: int
    row_bytes_at_least: int = 16384
    _buffers: tuple[np.ndarray, ...] = ()
    _key: ShapeKey | None = None
    _rows: int = 0

    def stage(self, key: ShapeKey, chunk: Chunk) -> None:
        """Copy the chunk's rows behind those already staged and let the chunk point to the copies."""
        if sum(spec.row_bytes for spec in chunk.head.inputs) < self.row_bytes_at_least:
            return
        if chunk.total > self.max_rows or any(array.dtype == object for array in chunk.arrays):
            return
        if not self._fits(key, chunk):
            self._open(key, chunk)
        start, end = self._rows, self._rows + chunk.total
        for buffer, array in zip(self._buffers, chunk.arrays, strict=True):
            np.copyto(buffer[start:end], array)
        chunk.arrays = tuple(buffer[start:end] for buffer in self._buffers)
        chunk.staged = (self._buffers, start)
        self._rows = end

    def _fits(self, key: ShapeKey, chunk: Chunk) -> bool:
        return (
            key == self._key
            and self._rows + chunk.total <= self.max_rows
            and all(
                buffer.shape[1:] == array.shape[1:] for buffer, array in zip(self._buffers, chunk.arrays, strict=True)
            )
        )

    def _open(self, key: ShapeKey, chunk: Chunk) -> None:
        self._key, self._rows = key, 0
        self._buffers = tuple(np.empty((self.max_rows, *array.shape[1:]), dtype=array.dtype) for array in chunk.arrays)

    def take(self, chunks: Sequence[Chunk], bucket: int) -> dict[str, np.ndarray] | None:
        """The staged arrays [bucket, *dims] where they hold exactly `chunks` from their start, else None.

        Rows of the buffer beyond the chunks are overwritten with padding, so none of them may still be waiting.
        """
        first = chunks[0].staged
        if first is None or first[0] is not self._buffers:
            return None
        at = 0
        for chunk in chunks:
            if chunk.staged is None or chunk.staged[0] is not self._buffers or chunk.staged[1] != at:
                return None
            at += chunk.total
        if at not in (bucket, self._rows):
            return None
        buffers, self._buffers, self._key, self._rows = self._buffers, (), None, 0
        for buffer in buffers:
            buffer[at:bucket] = buffer[at - 1]
        return {spec.name: buffer[:bucket] for spec, buffer in zip(chunks[0].head.inputs, buffers, strict=True)}
