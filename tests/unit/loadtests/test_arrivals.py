"""The schedule of an open loop."""

import numpy as np
import pytest

from loadtests import arrivals


def test_gaps_of_a_poisson_schedule_are_exponential() -> None:
    times = arrivals.poisson(rate=200, seconds=100, seed=3)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # exponential: deviation equals mean


def test_a_schedule_is_ascending_and_ends_before_the_run_does() -> None:
    times = arrivals.poisson(rate=50, seconds=2, seed=1)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 2


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first, again, other = (arrivals.poisson(100, 1, seed) for seed in (5, 5, 6))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_the_shares_of_all_processes_together_are_the_schedule() -> None:
    times = arrivals.poisson(100, 1, 2)
    parts = [arrivals.share(times, part, 3) for part in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == times.tolist()


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_or_length_that_is_not_positive_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        arrivals.poisson(rate, seconds, 1)
