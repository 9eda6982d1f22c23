"""What this router takes: bounds on rows and bytes in flight, and every request's deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardline.core.errors import DeadlineExceeded, Exhausted, MessageTooLarge

if TYPE_CHECKING:
    from shardline.router.calls import Prepared
    from shardline.router.table import Model, Table

_LONGEST_S = 30 * 86400.0
"""Deadlines later than this are this one: links count milliseconds in 32 bits."""
_RETRY_S = 0.1
"""Hint to callers that were refused: by then batches ended and there is room again."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this process takes at most. rows_in_flight: per model; bytes_in_flight: of all requests.

    default_timeout_s: deadline of a request that brings none, where its model sets none.
    """

    rows_in_flight: int
    bytes_in_flight: int
    max_message_bytes: int
    retry_ratio: float
    default_timeout_s: float = 60.0


class Admission:
    """Counts what is in flight and refuses what would be too much, before any work is done on it."""

    def __init__(self, bounds: Bounds, table: Table) -> None:
        self._bounds = bounds
        self._table = table
        self.bytes_in_flight = 0

    def check_size(self, what: str, size_bytes: int) -> None:
        """Refuse a message above the limit. what: request or answer. Raises MessageTooLarge, naming the setting."""
        limit = self._bounds.max_message_bytes
        if size_bytes > limit:
            raise MessageTooLarge(
                f"{what} has {size_bytes} bytes, the limit is {limit}; raise it by SHARDLINE_MAX_MESSAGE_BYTES"
            )

    def admit(self, prepared: Prepared, size_bytes: int) -> Model:
        """Count a request; returns the model whose rows it counts among, for `release`. Raises Exhausted."""
        bounds, serving, rows = self._bounds, prepared.serving, prepared.template.rows
        model = self._table.models[serving.pool.model]
        limit = min(bounds.rows_in_flight, serving.limit_rows)
        if rows > limit:
            setting = "SHARDLINE_ROWS_IN_FLIGHT" if limit == bounds.rows_in_flight else "the model's max_queue_size"
            raise MessageTooLarge(
                f"request has {rows} rows, the limit is {limit}; send fewer rows a request, or raise it by {setting}"
            )
        if model.rows_in_flight + rows > limit:
            raise Exhausted(
                f"model '{model.name}': {model.rows_in_flight} of {limit} rows are in flight, "
                f"{rows} more were refused; retry in {_RETRY_S} s",
                retry_after_s=_RETRY_S,
            )
        if self.bytes_in_flight + size_bytes > bounds.bytes_in_flight:
            raise Exhausted(
                f"{self.bytes_in_flight} of {bounds.bytes_in_flight} bytes are in flight, "
                f"{size_bytes} more were refused; retry in {_RETRY_S} s",
                retry_after_s=_RETRY_S,
            )
        model.rows_in_flight += rows
        self.bytes_in_flight += size_bytes
        return model

    def release(self, model: Model, rows: int, size_bytes: int) -> None:
        """An admitted request ended."""
        model.rows_in_flight -= rows
        self.bytes_in_flight -= size_bytes

    def deadline(self, prepared: Prepared, left_s: float | None, now: float) -> float:
        """When the request's time is over: its gRPC deadline, its parameter, the model's default, or the router's.

        left_s: until the gRPC deadline, None where there is none. Raises DeadlineExceeded where it has passed.
        """
        if left_s is None:
            left_s = prepared.template.timeout_s or prepared.serving.spec.batching.default_timeout_s
            left_s = left_s or self._bounds.default_timeout_s
        if left_s <= 0:
            raise DeadlineExceeded("deadline had passed when the request arrived")
        return now + min(left_s, _LONGEST_S)
