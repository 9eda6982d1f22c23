"""Counters as Triton's ModelStatistics: what tritonclient, perf_analyzer and our own routers read."""

from __future__ import annotations

from shardline.pb.inference import grpc_service_pb2 as pb
from shardline.replica.counters import Counters, Duration


def model_statistics(name: str, version: int, counters: Counters) -> pb.ModelStatistics:
    """One version's counters as a message; durations in nanoseconds."""
    message = pb.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=counters.last_ms,
        inference_count=counters.inferences,
        execution_count=counters.executions,
    )
    stats = message.inference_stats
    for field, duration in (
        (stats.success, counters.success),
        (stats.fail, counters.fail),
        (stats.queue, counters.queue),
        (stats.compute_input, counters.compute_input),
        (stats.compute_infer, counters.compute_infer),
        (stats.compute_output, counters.compute_output),
    ):
        _fill(field, duration)
    for size, times in sorted(counters.batches.items()):
        batch = message.batch_stats.add(batch_size=size)
        _fill(batch.compute_input, times.compute_input)
        _fill(batch.compute_infer, times.compute_infer)
        _fill(batch.compute_output, times.compute_output)
    return message


def _fill(field: pb.StatisticDuration, duration: Duration) -> None:
    field.count = duration.count
    field.ns = duration.ns
