"""Sums of Triton's ModelStatistics over replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shardline.ops import logs
from shardline.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

log = logs.get(__name__)


def add_up(parts: Iterable[pb.ModelStatistics]) -> pb.ModelStatistics:
    """The sum of several replicas' statistics of one model version; empty where there are none."""
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


def fold(snapshots: Sequence[bytes]) -> bytes:
    """`add_up` of serialized statistics; those that cannot be read are left out. Empty where none can."""
    parts = list(readable(snapshots))
    return add_up(parts).SerializeToString() if parts else b""


def readable(snapshots: Iterable[bytes]) -> Iterator[pb.ModelStatistics]:
    """The statistics that can be read; a snapshot that another release wrote may not be."""
    for snapshot in snapshots:
        try:
            yield pb.ModelStatistics.FromString(snapshot)
        except DecodeError:
            log.warning("statistics.unreadable", bytes=len(snapshot))


def _add(into: pb.StatisticDuration, more: pb.StatisticDuration) -> None:
    into.count += more.count
    into.ns += more.ns
