"""When an open loop sends: independent callers form a Poisson process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def poisson(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Arrival times in [0, seconds), ascending, at `rate` per second on average.

    Gaps are exponential, so the number of arrivals varies by about sqrt(rate·seconds).
    The same seed gives the same schedule. Raises ValueError for a rate or length that is not positive.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be positive, not {rate} and {seconds}")
    random = np.random.default_rng(seed)
    expected = rate * seconds
    enough = int(expected + 8 * expected**0.5 + 16)
    times = np.cumsum(random.exponential(1.0 / rate, enough))
    return times[times < seconds]


def share(times: NDArray[np.float64], part: int, parts: int) -> NDArray[np.float64]:
    """Every parts-th arrival: the schedule of one of several sending processes."""
    return times[part::parts]
