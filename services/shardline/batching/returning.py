"""Whether callers come back after their answer, and how soon: what the closed-loop guard of the policy needs to know.

A closed loop of N callers under a greedy policy collapses to batches of {1, N-1} (docs/architecture.md). Waiting for the
rows just answered costs their spread and saves a batch's fixed cost alpha, so it pays only while spread < alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardline.batching.policy import Returning

_SMOOTHING = 0.25
_MOST = 0.9
"""Share of the answered rows whose return counts as all of them: one caller may have stopped."""
_PROBE_EVERY = 64
"""Batches after which a loop that looked open is looked at again."""


@dataclass(slots=True)
class ReturnTracker:
    """Learns the spread from arrivals. Times are monotonic seconds, `alpha_s` the fixed cost of a batch."""

    spread_s: float = 0.0
    _answered_at: float = 0.0
    _expected: int = 0
    _came: int = 0
    _open: bool = True
    _batches: int = 0

    def answered(self, rows: int, now: float) -> None:
        """A batch of `rows` was answered."""
        if self._expected and self._came < _MOST * self._expected:
            self._open = True  # those of the last batch never came back: no closed loop
        self._batches += 1
        if self._batches % _PROBE_EVERY == 0:
            self._open = False
        self._expected, self._came, self._answered_at = rows, 0, now

    def arrived(self, rows: int, now: float) -> None:
        """`rows` arrived."""
        before = self._came
        self._came += rows
        if before < _MOST * self._expected <= self._came:
            seen = now - self._answered_at
            self.spread_s = seen if self._open else self.spread_s + _SMOOTHING * (seen - self.spread_s)
            self._open = False

    def returning(self, waiting: int, alpha_s: float) -> Returning | None:
        """What the policy should wait for; None while a wait would not pay. waiting: rows in the queue now."""
        if self._open or not 0 < self.spread_s < alpha_s or self._came >= _MOST * self._expected:
            return None
        return Returning(waiting + self._expected - self._came, self._answered_at, 2 * self.spread_s)
