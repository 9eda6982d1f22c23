"""Sums of Triton's ModelStatistics over replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable


def add_up(parts: Iterable[pb.ModelStatistics]) -> pb.ModelStatistics:
    """The sum of several replicas' statistics of one model version; there must be one at least."""
    total = pb.ModelStatistics()
    batches: dict[int, pb.InferBatchStatistics] = {}
    for part in parts:
        total.name, total.version = part.name, part.version
        total.last_inference = max(total.last_inference, part.last_inference)
        total.inference_count += part.inference_count
        total.execution_count += part.execution_count
        for field in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
            _add(getattr(total.inference_stats, field), getattr(part.inference_stats, field))
        for item in part.batch_stats:
            known = batches.setdefault(item.batch_size, pb.InferBatchStatistics(batch_size=item.batch_size))
            for field in ("compute_input", "compute_infer", "compute_output"):
                _add(getattr(known, field), getattr(item, field))
    total.batch_stats.extend(batches[size] for size in sorted(batches))
    return total


def _add(into: pb.StatisticDuration, more: pb.StatisticDuration) -> None:
    into.count += more.count
    into.ns += more.ns
