"""Deadlines: points on the monotonic clock, passed instead of numbers of seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A point on this process's monotonic clock, in seconds; infinity means none."""

    at: float

    @classmethod
    def after(cls, seconds: float, now: float | None = None) -> Deadline:
        """The deadline that is `seconds` from now."""
        return cls((time.monotonic() if now is None else now) + seconds)

    def remaining_s(self, now: float | None = None) -> float:
        """Seconds left, never below 0; infinity where there is no deadline."""
        return max(0.0, self.at - (time.monotonic() if now is None else now))

    def passed(self, now: float | None = None) -> bool:
        """Whether the deadline lies in the past."""
        return (time.monotonic() if now is None else now) >= self.at


NEVER = Deadline(float("inf"))
