"""Which replica gets the next rows, which version is the default, whether a failed part may go elsewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pool member that could take rows.

    own_rows: this router's rows in flight there. reported_rows: rows queued and running by its last load report;
    report_age_s: how old that is.
    """

    own_rows: int
    reported_rows: int = 0
    report_age_s: float = float("inf")


_FRESH_S = 0.05
"""A report older than this says little about a queue that empties every few milliseconds."""


def load_of(candidate: Candidate) -> int:
    """Rows ahead of a new one: the report while it is fresh, but never fewer than this router's own."""
    if candidate.report_age_s > _FRESH_S:
        return candidate.own_rows
    return max(candidate.own_rows, candidate.reported_rows)


def power_of_two(candidates: Sequence[Candidate], pick: Callable[[int], int]) -> int:
    """Index of the less loaded of two candidates drawn at random (Mitzenmacher 2001); `pick(n)` draws from 0 .. n-1.

    One draw decides a tie: the first drawn wins.
    """
    count = len(candidates)
    first = pick(count)
    if count == 1:
        return first
    second = pick(count - 1)
    if second >= first:
        second += 1
    return second if load_of(candidates[second]) < load_of(candidates[first]) else first


def default_version(ready: Mapping[int, int]) -> int:
    """The version for requests that name none: the newest that is ready on as many replicas as any other.

    ready: replicas that are ready, by version; at least one entry. So during a rollout every request goes to the old
    version until the new one is ready everywhere, and then every one goes to the new.
    """
    most = max(ready.values())
    return max(version for version, count in ready.items() if count == most)


class RetryBudget:
    """Bounds retries to a share of traffic, so that trouble is not multiplied (gRFC A6's idea).

    Each request adds `ratio` of a token up to `burst`; each retry takes one.
    """

    def __init__(self, ratio: float, burst: int = 256) -> None:
        self.ratio = ratio
        self.burst = float(burst)
        self.tokens = float(burst)

    def earn(self) -> None:
        """A request came."""
        tokens = self.tokens + self.ratio
        self.tokens = min(self.burst, tokens)

    def spend(self) -> bool:
        """Take a token for a retry; False where there is none."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
