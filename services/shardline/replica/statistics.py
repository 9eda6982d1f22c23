"""Counters as Triton's ModelStatistics: what tritonclient, perf_analyzer and our own routers read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from shardline.ops.metrics import BatchCounters


def model_statistics(name: str, version: int, counters: BatchCounters, stage: int = 0) -> pb.ModelStatistics:
    """One version's counters as a message: an inference is a row, an execution a batch, durations are nanoseconds.

    stage: of a split model, which clients see as one. Every call passes all stages: the first one counts it, the others add
    their time to it.
    """
    first = stage == 0
    message = pb.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=counters.last_ms,
        inference_count=counters.rows if first else 0,
        execution_count=counters.batches if first else 0,
    )
    stats, requests = message.inference_stats, counters.requests if first else 0
    _fill(stats.success, requests, counters.success_s)
    _fill(stats.fail, sum(counters.failed.values()), counters.fail_s)
    _fill(stats.queue, requests, counters.queue_s)
    _fill(stats.compute_input, requests, counters.input_s)
    _fill(stats.compute_infer, requests, counters.infer_s)
    _fill(stats.compute_output, requests, counters.output_s)
    for size, times in sorted(counters.sizes.items()) if first else ():
        batch = message.batch_stats.add(batch_size=size)
        _fill(batch.compute_input, times.count, times.input_s)
        _fill(batch.compute_infer, times.count, times.infer_s)
        _fill(batch.compute_output, times.count, times.output_s)
    return message


def _fill(field: pb.StatisticDuration, count: int, seconds: float) -> None:
    field.count = count
    field.ns = int(seconds * 1e9)
