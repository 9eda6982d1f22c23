"""Whether memory is flat over a soak: one rule, stated once.

The first fifth of the samples is warm-up (arenas, caches, metrics with new labels) and is left out. Of the rest, the
median of the last third may lie above the median of the first third by at most 5 %, or by 16 MiB where that is more.
Medians ignore the saw teeth of a collector; a leak of 16 bytes per request shows after two million of them as 30 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP = 0.2
ALLOWED_SHARE = 0.05
ALLOWED_BYTES = 16 << 20
FEWEST_SAMPLES = 15


@dataclass(frozen=True, slots=True)
class Flatness:
    """Resident bytes early and late in the run, and how much more was allowed."""

    early_bytes: float
    late_bytes: float
    allowed_bytes: float

    @property
    def growth_bytes(self) -> float:
        """Late minus early; negative where memory shrank."""
        return self.late_bytes - self.early_bytes

    @property
    def flat(self) -> bool:
        """The rule."""
        return self.growth_bytes <= self.allowed_bytes


def judge(resident_bytes: Sequence[float]) -> Flatness:
    """Judge samples taken at equal distances. Raises ValueError for fewer than FEWEST_SAMPLES: no verdict is better."""
    if len(resident_bytes) < FEWEST_SAMPLES:
        raise ValueError(f"{len(resident_bytes)} samples are too few to judge, {FEWEST_SAMPLES} are needed")
    settled = resident_bytes[int(len(resident_bytes) * WARM_UP) :]
    third = len(settled) // 3
    early, late = median(settled[:third]), median(settled[-third:])
    return Flatness(early, late, max(ALLOWED_SHARE * early, ALLOWED_BYTES))
