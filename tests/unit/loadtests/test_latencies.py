"""Percentiles of a run."""

import numpy as np
import pytest

from loadtests.latencies import Latencies, over_time


def test_percentiles_are_in_milliseconds_and_need_no_order() -> None:
    seconds = np.random.default_rng(1).permutation(np.arange(1, 1001)) / 1e3
    found = Latencies.of_seconds(seconds)
    assert found.count == 1000
    assert found.p50_ms == pytest.approx(500.5)
    assert found.p99_ms == pytest.approx(990.01)
    assert found.max_ms == pytest.approx(1000)
    assert found.mean_ms == pytest.approx(500.5)


def test_a_run_without_answers_has_zeros_not_an_error() -> None:
    assert Latencies.of_seconds([]) == Latencies()


def test_windows_go_by_the_due_time_and_leave_out_empty_ones() -> None:
    windows = over_time([0.1, 2.9, 0.2, 2.1], [1.0, 0.5, 3.0, 0.1], window_s=1.0)
    assert [(window.start_s, window.latencies.count) for window in windows] == [(0.0, 2), (2.0, 2)]
    assert windows[0].latencies.p50_ms == pytest.approx(2000)
