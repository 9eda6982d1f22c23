"""How many rows are on their way through a pipeline of stages, as routers tell its first stages, and those the next."""

from __future__ import annotations

from dataclasses import dataclass, field

_FADES = 0.9
"""What is left of a number when a smaller one comes: the callers of one batch come back one after the other."""
_REMEMBERED_S = 10.0
"""A sender that said nothing for so long has nothing in flight."""


@dataclass(slots=True)
class InFlight:
    """The sum over senders. Times are monotonic seconds."""

    _by_sender: dict[bytes, tuple[float, float]] = field(default_factory=dict)

    def told(self, sender: bytes, rows: int, now: float) -> None:
        """`sender` knows of so many rows in the pipeline."""
        before, _ = self._by_sender.get(sender, (0.0, now))
        self._by_sender[sender] = (max(float(rows), _FADES * before), now)

    def rows(self, now: float) -> int:
        """Rows of all senders; 0 where none told lately."""
        gone = [sender for sender, (_, at) in self._by_sender.items() if now - at > _REMEMBERED_S]
        for sender in gone:
            del self._by_sender[sender]
        return round(sum(rows for rows, _ in self._by_sender.values()))
