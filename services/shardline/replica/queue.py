"""The batching queue of one pool member: bounded, by shape key and priority, cancelled and expired rows removed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardline.batching.policy import QueueView
from shardline.replica.chunk import NO_DEADLINE, Chunk, ShapeKey

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Lane:
    """Chunks of one shape key, one deque per priority, the most urgent first."""

    levels: dict[int, deque[Chunk]] = field(default_factory=dict)
    rows: int = 0

    def put(self, chunk: Chunk) -> None:
        """Append behind the chunks of its priority."""
        level = self.levels.get(chunk.priority)
        if level is None:
            level = self.levels[chunk.priority] = deque()
            self.levels = dict(sorted(self.levels.items()))
        level.append(chunk)
        self.rows += chunk.total

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in the order in which they would be taken."""
        for level in self.levels.values():
            yield from level

    def first(self) -> Chunk:
        """The chunk that would be taken first; the lane must hold one."""
        return next(self.chunks())

    def pop(self, rows: int, *, any_size: bool) -> Chunk | None:
        """The first calls that fit into `rows` rows; with any_size at least one call. None where none fits."""
        for level in self.levels.values():
            if level:
                front, rest = level[0].split_at(rows)
                if front is None and any_size:
                    front, rest = level[0].split_at(level[0].rows[0])
                if front is None:
                    return None
                level.popleft()
                if rest is not None:
                    level.appendleft(rest)
                self.rows -= front.total
                return front
        return None


@dataclass(frozen=True, slots=True)
class Taken:
    """What left the queue for one batch.

    chunks: to execute, of so many rows. expired: (chunk, calls of it) whose deadline passed while they waited.
    cancelled_rows: that nobody wants any more.
    """

    chunks: list[Chunk]
    rows: int
    expired: list[tuple[Chunk, list[int]]]
    cancelled_rows: int = 0


class BatchQueue:
    """Rows waiting for one model version on one replica. Not thread-safe: the event loop owns it."""

    def __init__(self, limit_rows: int) -> None:
        self._limit_rows = limit_rows
        self._lanes: dict[ShapeKey, Lane] = {}
        self.rows = 0

    def has_room(self, rows: int) -> bool:
        """Whether `rows` more may wait here."""
        return self.rows + rows <= self._limit_rows

    def put(self, key: ShapeKey, chunk: Chunk) -> None:
        """Append; the caller asked has_room before."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        lane.put(chunk)
        self.rows += chunk.total

    @property
    def calls(self) -> int:
        """Calls with rows waiting here; counted anew, for scrapes."""
        return sum(len(chunk.calls) for lane in self._lanes.values() for chunk in lane.chunks())

    def next_key(self) -> ShapeKey | None:
        """The shape key whose first chunk is the most urgent, then the oldest."""
        if len(self._lanes) == 1:
            return next(iter(self._lanes))
        if not self._lanes:
            return None

        def urgency(key: ShapeKey) -> tuple[int, float]:
            first = self._lanes[key].first()
            return first.priority, first.arrived

        return min(self._lanes, key=urgency)

    def oldest_at(self) -> float:
        """Arrival of the chunk that would be taken first; the queue must hold one."""
        return min(lane.first().arrived for lane in self._lanes.values()) if self._lanes else NO_DEADLINE

    def view(self, key: ShapeKey) -> QueueView:
        """What the policy needs to know of one shape key."""
        lane = self._lanes[key]
        oldest, earliest = NO_DEADLINE, NO_DEADLINE
        for chunk in lane.chunks():
            oldest = min(oldest, chunk.arrived)
            earliest = min(earliest, chunk.earliest)
        return QueueView(lane.rows, oldest, earliest)

    def take(self, key: ShapeKey, rows: int, now: float) -> Taken:
        """Remove up to `rows` rows for one batch, leaving out what nobody wants any more.

        A first call of more rows than that is taken alone: a model that is served unbatched runs whole calls.
        """
        lane = self._lanes[key]
        rows = min(rows, lane.first().head.micro_rows or rows)
        before = lane.rows
        chunks: list[Chunk] = []
        expired: list[tuple[Chunk, list[int]]] = []
        left, cancelled = rows, 0
        while left > 0:
            chunk = lane.pop(left, any_size=left == rows)
            if chunk is None:
                break
            alive, late = chunk.living(now)
            if late:
                expired.append((chunk, late))
            if chunk.dropped:
                cancelled += chunk.rows_of(chunk.dropped)
            for part in alive:
                chunks.append(part)
                left -= part.total
        self.rows -= before - lane.rows
        if lane.rows == 0:
            del self._lanes[key]
        return Taken(chunks, rows - left, expired, cancelled)

    def cancel(self, peer: bytes, calls: set[int]) -> set[int]:
        """Mark calls of `peer` as unwanted; returns those that were waiting here."""
        found: set[int] = set()
        for lane in self._lanes.values():
            for chunk in lane.chunks():
                if chunk.peer == peer:
                    hit = calls.intersection(chunk.calls)
                    chunk.dropped |= hit
                    found |= hit
        return found

    def drain(self) -> list[Chunk]:
        """Remove and return everything."""
        chunks = [chunk for lane in self._lanes.values() for chunk in lane.chunks()]
        self._lanes.clear()
        self.rows = 0
        return chunks
