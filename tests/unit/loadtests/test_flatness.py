"""The rule by which a soak judges memory."""

import numpy as np
import pytest

from loadtests.flatness import FEWEST_SAMPLES, judge

MB = 1e6


def test_a_constant_is_flat() -> None:
    assert judge([200 * MB] * 60).flat


def test_growth_during_warm_up_does_not_count() -> None:
    warm = list(np.linspace(50 * MB, 300 * MB, 120))
    assert judge(warm + [300 * MB] * 480).flat


def test_a_slow_leak_is_found() -> None:
    """100 MB an hour over ten minutes of a process of 100 MB."""
    series = [100 * MB + 60 * MB * second / 600 for second in range(600)]
    verdict = judge(series)
    assert not verdict.flat
    assert verdict.growth_bytes == pytest.approx(60 * MB * 0.8 * 2 / 3, rel=0.05)


def test_a_saw_tooth_is_flat_although_its_peaks_are_high() -> None:
    assert judge([100 * MB + 80 * MB * (second % 30) / 30 for second in range(600)]).flat


def test_small_processes_may_grow_by_some_megabytes_and_large_ones_by_a_twentieth() -> None:
    assert judge([10 * MB] * 40 + [25 * MB] * 40).flat
    assert not judge([10 * MB] * 40 + [40 * MB] * 40).flat
    assert judge([2000 * MB] * 40 + [2090 * MB] * 40).flat
    assert not judge([2000 * MB] * 40 + [2150 * MB] * 40).flat


def test_memory_that_shrinks_is_flat() -> None:
    assert judge([500 * MB] * 40 + [100 * MB] * 40).flat


def test_too_few_samples_give_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        judge([MB] * (FEWEST_SAMPLES - 1))
