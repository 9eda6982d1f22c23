"""The line l(b) = alpha + beta·b, learnt batch by batch."""

from __future__ import annotations

import random

import pytest

from shardline.batching.latency import LatencyFit


def fitted(*batches: tuple[int, float]) -> LatencyFit:
    fit = LatencyFit()
    for rows, seconds in batches:
        fit.observe(rows, seconds)
    return fit


def test_nothing_is_predicted_before_the_first_batch() -> None:
    assert LatencyFit().predict_s(8) == 0.0


def test_one_batch_predicts_itself() -> None:
    assert fitted((4, 0.020)).predict_s(4) == pytest.approx(0.020, rel=1e-3)


def test_two_sizes_give_the_line() -> None:
    fit = fitted((1, 0.006), (8, 0.013))
    assert fit.alpha_s == pytest.approx(0.005, rel=1e-3)
    assert fit.beta_s == pytest.approx(0.001, rel=1e-3)
    assert fit.predict_s(32) == pytest.approx(0.037, rel=1e-3)


def test_batches_of_one_size_for_ever_predict_that_size_and_stay_finite() -> None:
    fit = fitted(*[(4, 0.020)] * 10_000)
    assert fit.predict_s(4) == pytest.approx(0.020, rel=1e-3)
    for rows in (1, 32):
        assert 0 <= fit.predict_s(rows) < 1.0
    fit.observe(8, 0.030)
    assert fit.predict_s(8) == pytest.approx(0.030, rel=0.1)


def test_a_model_that_becomes_slower_is_followed() -> None:
    sizes = [1, 2, 4, 8]
    fit = fitted(*[(size, 0.001 + 0.001 * size) for size in sizes * 50])
    for size in sizes * 50:
        fit.observe(size, 0.010 + 0.002 * size)
    assert fit.predict_s(8) == pytest.approx(0.026, rel=0.05)


def test_noise_is_averaged_out() -> None:
    draw = random.Random(7)
    fit = LatencyFit()
    for _ in range(500):
        rows = draw.choice([1, 2, 4, 8, 16])
        fit.observe(rows, (0.005 + 0.0005 * rows) * draw.uniform(0.8, 1.2))
    assert fit.predict_s(16) == pytest.approx(0.013, rel=0.15)


@pytest.mark.parametrize("batches", [[(1, 0.020), (8, 0.005)], [(4, 0.001), (8, 0.020)], [(8, 0.0), (1, 0.0)]])
def test_coefficients_are_never_negative(batches: list[tuple[int, float]]) -> None:
    fit = fitted(*batches)
    assert fit.alpha_s >= 0
    assert fit.beta_s >= 0


def test_observations_are_counted() -> None:
    assert fitted((1, 0.1), (2, 0.2)).observations == 2
