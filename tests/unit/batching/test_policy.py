"""When a batch goes, and of how many rows: tables, in any unit of time."""

from __future__ import annotations

import pytest

from shardline.batching.policy import (
    Limits,
    QueueView,
    Returning,
    Take,
    WaitUntil,
    bucket_for,
    decide,
    micro_batch_rows,
    pipeline_rows,
    row_ranges,
    worthwhile_rows,
)

NEVER = float("inf")


@pytest.mark.parametrize(
    ("waiting", "most", "taken"), [(1, 8, 1), (7, 8, 7), (8, 8, 8), (9, 8, 8), (1, 1, 1), (5, 1, 1)]
)
def test_greedy_takes_what_is_there_up_to_the_largest_batch(waiting: int, most: int, taken: int) -> None:
    assert decide(QueueView(waiting, oldest_at=0.0), 100.0, Limits(most)) == Take(taken)


DELAY = Limits(8, delay_s=5.0)


@pytest.mark.parametrize(
    ("queue", "limits", "now", "decision"),
    [
        (QueueView(1, 10.0), DELAY, 10.0, WaitUntil(15.0)),
        (QueueView(7, 10.0), DELAY, 14.9, WaitUntil(15.0)),
        (QueueView(7, 10.0), DELAY, 15.0, Take(7)),
        (QueueView(7, 10.0), DELAY, 99.0, Take(7)),
        (QueueView(8, 10.0), DELAY, 10.0, Take(8)),
        (QueueView(4, 10.0), Limits(8, 5.0, preferred_rows=4), 10.0, Take(4)),
        (QueueView(3, 10.0), Limits(8, 5.0, preferred_rows=4), 10.0, WaitUntil(15.0)),
        (QueueView(6, 10.0), Limits(8, 5.0, preferred_rows=4), 10.0, Take(6)),
        (QueueView(8, 10.0), Limits(8, 5.0, preferred_rows=99), 10.0, Take(8)),
    ],
)
def test_a_configured_delay_counts_from_the_oldest_row_and_ends_at_the_preferred_size(
    queue: QueueView, limits: Limits, now: float, decision: Take | WaitUntil
) -> None:
    assert decide(queue, now, limits) == decision


@pytest.mark.parametrize(
    ("earliest", "predicted_s", "now", "decision"),
    [
        (NEVER, 1.0, 10.0, WaitUntil(15.0)),
        (13.0, 1.0, 10.0, WaitUntil(12.0)),
        (13.0, 1.0, 12.0, Take(1)),
        (13.0, 0.0, 12.0, WaitUntil(13.0)),
        (11.0, 4.0, 10.0, Take(1)),
        (99.0, 1.0, 10.0, WaitUntil(15.0)),
    ],
)
def test_no_wait_makes_a_row_miss_its_deadline(
    earliest: float, predicted_s: float, now: float, decision: Take | WaitUntil
) -> None:
    limits = Limits(8, delay_s=5.0, predicted_s=predicted_s)
    assert decide(QueueView(1, 10.0, earliest), now, limits) == decision


@pytest.mark.parametrize(
    ("waiting", "returning", "now", "decision"),
    [
        (1, None, 10.0, Take(1)),
        (1, Returning(8, 10.0, 0.0), 10.0, Take(1)),
        (1, Returning(8, 10.0, 2.0), 10.0, WaitUntil(12.0)),
        (7, Returning(8, 10.0, 2.0), 11.0, WaitUntil(12.0)),
        (8, Returning(8, 10.0, 2.0), 10.0, Take(8)),
        (1, Returning(8, 10.0, 2.0), 12.0, Take(1)),
        (1, Returning(1, 10.0, 2.0), 10.0, Take(1)),
    ],
)
def test_rows_just_answered_are_waited_for_while_they_return(
    waiting: int, returning: Returning | None, now: float, decision: Take | WaitUntil
) -> None:
    assert decide(QueueView(waiting, 10.0), now, Limits(16), returning) == decision


def test_the_longer_of_two_waits_counts() -> None:
    queue = QueueView(1, 10.0)
    assert decide(queue, 10.0, Limits(8, 5.0), Returning(8, 10.0, 2.0)) == WaitUntil(15.0)
    assert decide(queue, 10.0, Limits(8, 1.0), Returning(8, 10.0, 2.0)) == WaitUntil(12.0)


@pytest.mark.parametrize(
    ("rows", "buckets", "bucket"),
    [
        (1, (1, 2, 4), 1),
        (2, (1, 2, 4), 2),
        (3, (1, 2, 4), 4),
        (4, (1, 2, 4), 4),
        (5, (1, 2, 4), 5),
        (3, (), 3),
        (3, (8,), 8),
    ],
)
def test_a_batch_is_padded_to_the_next_bucket(rows: int, buckets: tuple[int, ...], bucket: int) -> None:
    assert bucket_for(rows, buckets) == bucket


@pytest.mark.parametrize(
    ("rows", "largest", "ranges"),
    [
        (1, 8, [(0, 1)]),
        (8, 8, [(0, 8)]),
        (9, 8, [(0, 5), (5, 9)]),
        (10, 4, [(0, 4), (4, 7), (7, 10)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_a_large_request_is_cut_evenly(rows: int, largest: int, ranges: list[tuple[int, int]]) -> None:
    assert row_ranges(rows, largest) == ranges


BUCKETS = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("rows", "stages", "alpha_s", "beta_s", "expected"),
    [
        (32, 2, 0.0, 0.0, 8),  # nothing known: about two micro-batches a stage
        (1, 4, 0.0, 0.0, 1),
        (32, 2, 0.010, 0.0, 32),  # rows cost nothing: one micro-batch
        (32, 2, 0.0, 0.010, 1),  # only rows cost: as many as there are
        (32, 2, 0.005, 0.001, 16),
        (32, 1, 0.005, 0.001, 32),  # one stage: no pipeline to fill
    ],
)
def test_a_micro_batch_weighs_its_fixed_cost_against_the_bubble(
    rows: int, stages: int, alpha_s: float, beta_s: float, expected: int
) -> None:
    assert micro_batch_rows(rows, stages, alpha_s, beta_s, BUCKETS) == expected


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 5, 32, 300])
def test_a_micro_batch_is_the_bucket_with_the_least_time(rows: int, stages: int) -> None:
    def seconds(size: int) -> float:
        return (-(-rows // size) + stages - 1) * (0.003 + 0.0005 * size)

    assert seconds(micro_batch_rows(rows, stages, 0.003, 0.0005, BUCKETS)) == min(map(seconds, BUCKETS))


@pytest.mark.parametrize(
    ("in_flight", "stages", "alpha_s", "beta_s", "expected"),
    [
        (32, 2, 0.0, 0.0, 16),  # nothing known: one micro-batch a stage
        (1, 2, 0.002, 0.005, 1),
        (4, 2, 0.002, 0.005, 2),  # all four would leave the other stage without work
        (16, 2, 0.002, 0.005, 4),
        (32, 2, 0.002, 0.005, 8),
        (1000, 2, 0.002, 0.005, 32),  # enough for all: the bucket that is best for itself
        (32, 2, 0.010, 0.0001, 16),  # rows cost next to nothing: as many as leave one batch to the other stage
        (32, 1, 0.010, 0.0001, 32),  # no other stage
    ],
)
def test_a_stage_takes_what_leaves_the_others_something_to_do(
    in_flight: int, stages: int, alpha_s: float, beta_s: float, expected: int
) -> None:
    assert pipeline_rows(in_flight, stages, alpha_s, beta_s, BUCKETS) == expected


@pytest.mark.parametrize(
    ("rows", "alpha_s", "beta_s", "taken"),
    [
        (8, 0.001, 0.005, 8),
        (9, 0.001, 0.005, 8),  # seven rows of padding cost more than a batch more
        (9, 0.100, 0.001, 9),  # not where the fixed cost is high
        (15, 0.010, 0.005, 15),
        (3, 0.0, 0.005, 2),
        (9, 0.0, 0.0, 9),  # nothing known
        (9, 0.0, 0.000002, 9),  # nor where rows cost less than the messages of a batch more
    ],
)
def test_padding_is_weighed_against_a_batch_more(rows: int, alpha_s: float, beta_s: float, taken: int) -> None:
    assert worthwhile_rows(rows, alpha_s, beta_s, BUCKETS) == taken


@pytest.mark.parametrize("alpha_s", [0.0, 0.0005, 0.01])
@pytest.mark.parametrize("rows", range(1, 33))
def test_what_is_taken_gives_at_least_the_rate_of_all(rows: int, alpha_s: float) -> None:
    def rate(taken: int) -> float:
        return taken / (alpha_s + 0.0005 + 0.002 * bucket_for(taken, BUCKETS))

    taken = worthwhile_rows(rows, alpha_s, 0.002, BUCKETS)
    assert 1 <= taken <= rows
    assert rate(taken) >= rate(rows)
