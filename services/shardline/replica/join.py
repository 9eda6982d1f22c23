"""A stage that takes tensors from several senders waits here until a call has all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shardline.core.errors import Exhausted

if TYPE_CHECKING:
    from shardline.replica.chunk import Chunk, Head


@dataclass(slots=True)
class Joins:
    """Calls that miss inputs, bounded in rows. A call is given up at its deadline, or when it is cancelled.

    order: inputs in the model's order. needed: without which a call is not complete.
    """

    order: tuple[str, ...]
    needed: frozenset[str]
    limit_rows: int
    rows: int = 0
    _waiting: dict[tuple[bytes, int], list[Chunk]] = field(default_factory=dict)
    _heads: dict[tuple[int, ...], tuple[tuple[Head, ...], Head]] = field(default_factory=dict)

    def add(self, chunk: Chunk, now: float) -> list[Chunk]:
        """Take what one sender has; returns the chunks that are complete now.

        Raises Exhausted where too many wait; then none of the chunk's calls waits any more, for all are refused.
        """
        if self.needed <= {spec.name for spec in chunk.head.inputs}:
            return [chunk]
        self._give_up(now)
        complete = []
        for index, call in enumerate(chunk.calls):
            part = chunk.part(index, index + 1)
            key = (chunk.peer, call)
            parts = self._waiting.get(key)
            if parts is None:
                if self.rows + part.total > self.limit_rows:
                    self.cancel(chunk.peer, set(chunk.calls))
                    raise Exhausted(
                        f"stage {chunk.head.pool}: {self.rows} rows wait for other stages, the limit is {self.limit_rows}",
                        retry_after_s=0.1,
                    )
                parts = self._waiting[key] = []
                self.rows += part.total
            parts.append(part)
            if self.needed <= {spec.name for piece in parts for spec in piece.head.inputs}:
                self._forget(key)
                complete.append(self._merge(parts))
        return complete

    def cancel(self, peer: bytes, calls: set[int]) -> None:
        """Nobody waits for these calls of `peer`."""
        for call in calls:
            self._forget((peer, call))

    def _forget(self, key: tuple[bytes, int]) -> None:
        parts = self._waiting.pop(key, None)
        if parts:
            self.rows -= parts[0].total

    def _give_up(self, now: float) -> None:
        """Calls arrive in order of time, so what is late stands first but for differing deadlines."""
        late = [key for key, parts in self._waiting.items() if parts[0].earliest <= now]
        for key in late:
            self._forget(key)

    def _merge(self, parts: list[Chunk]) -> Chunk:
        head = self._head(tuple(part.head for part in parts))
        arrays = {spec.name: array for part in parts for spec, array in zip(part.head.inputs, part.arrays, strict=True)}
        first = parts[0]
        return replace(
            first,
            head=head,
            arrays=tuple(arrays[spec.name] for spec in head.inputs),
            staged=None,
            receipts=tuple(dict.fromkeys(receipt for part in parts for receipt in part.receipts)),
        )

    def _head(self, heads: tuple[Head, ...]) -> Head:
        """One head for what came under several; the same object again for the same ones, so that calls group."""
        key = tuple(id(head) for head in heads)
        found = self._heads.get(key)
        if found is not None and all(ours is theirs for ours, theirs in zip(found[0], heads, strict=True)):
            return found[1]
        specs = {spec.name: spec for head in heads for spec in head.inputs}
        merged = replace(heads[0], inputs=tuple(specs[name] for name in self.order if name in specs))
        if len(self._heads) >= 1024:
            self._heads.clear()
        self._heads[key] = (heads, merged)
        return merged
