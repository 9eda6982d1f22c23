"""Sums of several replicas' statistics."""

from __future__ import annotations

from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.wire.statistics import add_up, fold

DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def statistics(last: int, rows: int, batches: int, *sizes: int) -> pb.ModelStatistics:
    """Of one replica; every duration is its row count in nanoseconds."""
    message = pb.ModelStatistics(
        name="m", version="1", last_inference=last, inference_count=rows, execution_count=batches
    )
    for name in DURATIONS:
        getattr(message.inference_stats, name).count = batches
        getattr(message.inference_stats, name).ns = rows
    for size in sizes:
        batch = message.batch_stats.add(batch_size=size)
        for duration in (batch.compute_input, batch.compute_infer, batch.compute_output):
            duration.count, duration.ns = 1, rows
    return message


def test_one_replicas_statistics_are_the_sum() -> None:
    one = statistics(5, 10, 4, 1, 2)
    assert add_up([one]) == one


def test_counts_and_durations_add_up_and_the_last_inference_is_the_latest() -> None:
    total = add_up([statistics(5, 10, 4), statistics(9, 20, 3), statistics(7, 1, 1)])
    assert (total.name, total.version) == ("m", "1")
    assert (total.last_inference, total.inference_count, total.execution_count) == (9, 31, 8)
    for name in DURATIONS:
        duration = getattr(total.inference_stats, name)
        assert (duration.count, duration.ns) == (8, 31)


def test_batches_add_up_by_size_in_order() -> None:
    total = add_up([statistics(1, 10, 1, 8, 1), statistics(1, 20, 1, 4, 8)])
    found = [(batch.batch_size, batch.compute_infer.count, batch.compute_infer.ns) for batch in total.batch_stats]
    assert found == [(1, 1, 10), (4, 1, 20), (8, 2, 30)]


def test_folded_snapshots_are_the_sum_of_those_that_can_be_read() -> None:
    one, two = statistics(5, 10, 4, 1), statistics(9, 20, 3, 1)
    folded = fold([one.SerializeToString(), b"\xff\xff", two.SerializeToString()])
    assert pb.ModelStatistics.FromString(folded) == add_up([one, two])
